//! Changes → Delta: everything behind the connectors.

pub mod collapse;
pub mod delta;
