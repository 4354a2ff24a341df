//! Changes → Delta: everything behind the connectors.
//!
//! [`pipeline`] drives one source: it decodes into [`buffer`], lets [`snapshot`] read existing rows
//! whose [`window`]s close into the same buffer, and hands both to the [`writer`], which
//! gives them the lake's [`shape`], [`collapse`]s them, applies them to tables of the [`delta`] lake, or keeps them [`staged`] for a
//! later merge, and closes an [`epoch`].
//! [`daemon`] keeps one pipeline a source running, which [`control`] commands. What they do stands on
//! the [`board`], from which [`serve`] shows it as a page and as [`metrics`], and [`progress`] on a
//! terminal; [`report`] is what the other commands say. [`verify`] compares lake and source.

pub mod alert;
pub mod board;
pub mod budget;
pub mod buffer;
pub mod collapse;
pub mod config;
pub mod control;
pub mod daemon;
pub mod delta;
pub mod epoch;
pub mod metrics;
pub mod pipeline;
pub mod planted;
pub mod progress;
pub mod report;
pub mod serve;
pub mod shape;
pub mod snapshot;
pub mod staged;
pub mod start;
pub mod verify;
pub mod window;
pub mod writer;
