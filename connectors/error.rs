//! One error for every connector: the kind says what to do, the rest says what happened and where.

use std::fmt;

use crate::schema::TableId;

/// What the daemon does about an error. There are as many kinds as there are different reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The source can't be reached or asked to wait: try again with backoff, from the durable state.
    Unavailable,
    /// The user has to change something (configuration, rights, a setting of the server).
    Config,
    /// The source no longer holds the next position: tables that need it go to `gap`.
    Gap,
    /// One table can't go on; [`Error::table`] names it. The others do.
    Table,
    /// A broken invariant of our own.
    Internal,
}

/// An error with its kind, its place and, where there is one, its remedy.
///
/// `Display` prints the message, the context and the remedy, never the chain of causes: whoever
/// reports an error walks [`std::error::Error::source`] once.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Reason,
    table: Option<TableId>,
    context: Vec<(&'static str, String)>,
    remedy: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What happened, in lower case and without a full stop. A value that it quotes can be taken out by
/// whoever knows that the value's column is not to be seen: a connector doesn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    text: String,
    quoted: Option<Quoted>,
}

/// A value, and what is said after it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quoted {
    column: String,
    value: String,
    after: String,
}

impl Reason {
    /// A reason that names `value`, which stands in `column`, between `before` and `after`.
    pub fn quoting(
        before: impl Into<String>,
        column: impl Into<String>,
        value: impl Into<String>,
        after: impl Into<String>,
    ) -> Self {
        let (column, value, after) = (column.into(), value.into(), after.into());
        Self { text: before.into(), quoted: Some(Quoted { column, value, after }) }
    }

    /// The same without the value, if its column `is_hidden`.
    #[must_use]
    pub fn hide(self, is_hidden: impl FnOnce(&str) -> bool) -> Self {
        match self.quoted {
            Some(Quoted { column, after, .. }) if is_hidden(&column) => {
                Self::from(format!("{}a value that is not shown{after}", self.text))
            }
            quoted => Self { quoted, ..self },
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.quoted {
            Some(Quoted { value, after, .. }) => write!(f, "'{value}'{after}"),
            None => Ok(()),
        }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, quoted: None }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says what happened, in lower case and without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Reason>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            table: None,
            context: Vec::new(),
            remedy: None,
            source: None,
        }))
    }

    /// Shorthand for [`ErrorKind::Unavailable`].
    pub fn unavailable(message: impl Into<Reason>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(message: impl Into<Reason>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Shorthand for [`ErrorKind::Gap`].
    pub fn gap(message: impl Into<Reason>) -> Self {
        Self::new(ErrorKind::Gap, message)
    }

    /// Shorthand for [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<Reason>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error that stops `table` and no other.
    pub fn table(table: TableId, message: impl Into<Reason>) -> Self {
        let mut error = Self::new(ErrorKind::Table, message);
        error.0.table = Some(table);
        error
    }

    /// The same error with `key = value` added to its place.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// The same error with what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// The same error without the value that it quotes, if that value's column `is_hidden`.
    #[must_use]
    pub fn hide(mut self, is_hidden: impl FnOnce(&str) -> bool) -> Self {
        let message = std::mem::replace(&mut self.0.message, "".into());
        self.0.message = message.hide(is_hidden);
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The table that stops, for [`ErrorKind::Table`].
    pub fn stopped_table(&self) -> Option<&TableId> {
        self.0.table.as_ref()
    }

    /// What the user can do about it, where anything can be done.
    pub fn remedy_text(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// The message with every cause behind it, in one line, for logs and status.
    pub fn full(&self) -> String {
        self.with_causes(self.to_string())
    }

    /// The same without the remedy: for whoever shows that in a place of its own.
    pub fn what(&self) -> String {
        self.with_causes(Happened(&self.0).to_string())
    }

    fn with_causes(&self, mut text: String) -> String {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// What happened, and where.
struct Happened<'a>(&'a Inner);

impl fmt::Display for Happened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.0.table {
            write!(f, "{table}: ")?;
        }
        write!(f, "{}", self.0.message)?;
        for (index, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key} {value}", if index == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Happened(&self.0))?;
        if let Some(remedy) = &self.0.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.full())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_to_be_seen_can_be_taken_out() {
        let reason =
            Reason::quoting("column a of row id=1 holds ", "a", "x", ", which doesn't fit");
        let error = Error::table(TableId::new("s", "t"), reason).remedy("mend it");
        let shown = "s.t: column a of row id=1 holds 'x', which doesn't fit; mend it";
        let error = error.hide(|column| column == "b");
        assert_eq!(error.full(), shown);
        let error = error.hide(|column| column == "a");
        assert_eq!(error.full(), shown.replace("'x'", "a value that is not shown"));
        assert_eq!(Reason::from("as it is").hide(|_| true).to_string(), "as it is");
    }
}
