//! What a table of the lake is partitioned by: a column, or a part of a time.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Date32Array, Int32Array};
use lakeward_connectors::key::{civil, days};
use lakeward_connectors::schema::Type;
use lakeward_connectors::{Error, Result};

/// One column that a table is partitioned by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBy {
    /// The source's column.
    pub column: String,
    /// What of its values.
    pub part: Part,
}

/// What of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The year of a time, a number.
    Year,
    /// The first day of its month.
    Month,
    /// Its day (of UTC, where the time has a zone).
    Day,
}

impl PartitionBy {
    /// What `text` says: `column`, `year(column)`, `month(column)` or `day(column)`.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((part, rest)) = text.split_once('(') else {
            return Some(Self { column: text.to_owned(), part: Part::Whole });
        };
        let part = match part.trim() {
            "year" => Part::Year,
            "month" => Part::Month,
            "day" => Part::Day,
            _ => return None,
        };
        let column = rest.strip_suffix(')')?.trim();
        Some(Self { column: column.to_owned(), part })
    }

    pub(super) fn text(&self) -> String {
        match self.part.suffix() {
            None => self.column.clone(),
            Some(part) => format!("{part}({})", self.column),
        }
    }
}

impl Part {
    /// What is put after a column's name, to name the column of its part.
    pub(super) fn suffix(self) -> Option<&'static str> {
        match self {
            Part::Whole => None,
            Part::Year => Some("year"),
            Part::Month => Some("month"),
            Part::Day => Some("day"),
        }
    }

    /// The type of the part of values of `kind`; `None` when they have no such part.
    pub(super) fn kind(self, kind: &Type) -> Option<Type> {
        match (self, kind) {
            (Part::Whole, kind) => Some(kind.clone()),
            (Part::Year, Type::Date | Type::Timestamp | Type::LocalTimestamp) => Some(Type::Int32),
            (_, Type::Date | Type::Timestamp | Type::LocalTimestamp) => Some(Type::Date),
            _ => None,
        }
    }

    /// The parts of values.
    pub(super) fn of(self, values: &ArrayRef) -> Result<ArrayRef> {
        let fault = || Error::internal("a time has no part of that kind");
        let dates = values.as_primitive_opt::<Date32Type>();
        let times = values.as_primitive_opt::<TimestampMicrosecondType>();
        let day = |row: usize| match (dates, times) {
            _ if values.is_null(row) => Ok(None),
            (Some(dates), _) => Ok(Some(i64::from(dates.value(row)))),
            (_, Some(times)) => Ok(Some(times.value(row).div_euclid(86_400_000_000))),
            _ => Err(fault()),
        };
        let part = |row: usize| {
            let Some(day) = day(row)? else { return Ok(None) };
            let (year, month, _) = civil(day);
            let part = match self {
                Part::Whole => return Err(fault()),
                Part::Year => year,
                Part::Month => days(year, month, 1),
                Part::Day => day,
            };
            i32::try_from(part).map(Some).map_err(|_| fault())
        };
        let parts = (0..values.len()).map(part).collect::<Result<Vec<Option<i32>>>>()?;
        Ok(match self {
            Part::Year => Arc::new(Int32Array::from(parts)),
            _ => Arc::new(Date32Array::from(parts)),
        })
    }
}
