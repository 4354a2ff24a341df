//! Stand-in.
pub mod catalog;
pub mod decode;
mod pgoutput;
pub mod position;
pub mod snapshot;
mod storage;
mod types;
mod values;
