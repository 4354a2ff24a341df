//! A database → changes.
//!
//! This crate reads one kind of source each in [`postgres`], [`mysql`] and [`mongodb`] (and, for
//! tests, [`scripted`]) and turns what it reads into [`Batch`]es of Arrow columns. It knows no Delta:
//! the crate `lakeward` drives a connector through the contract in [`source`] and owns everything
//! behind it.
//!
//! The vocabulary, from the bottom up: [`error`] says what to do about a failure, [`schema`] what
//! a table looks like, [`change`] one value or operation, [`patch`] a change of a JSON text, [`key`]
//! the identity of a row, [`batch`] the columns that changes are decoded into, [`source`] what a
//! connector implements.

pub mod batch;
pub mod change;
pub mod error;
pub mod filter;
pub mod key;
pub mod mongodb;
pub mod mysql;
mod pace;
pub mod patch;
pub mod postgres;
pub mod schema;
pub mod scripted;
pub mod secret;
mod socket;
pub mod source;
mod tls;

pub use batch::Batch;
pub use change::{Op, Value};
pub use error::{Error, ErrorKind, Result};
pub use schema::{Column, Identity, TableId, TableSchema, Type};
pub use source::{ChunkReader, Position, Source, Stream, View};
