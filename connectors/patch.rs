//! Changes of a JSON text: what a source sends of a value of which it sends only what changed.
//!
//! A *patch* ([`Value::Patch`](crate::Value::Patch)) is made by a decoder, travels in the place of
//! its value, and is applied by the lake's writer to the value before: [`apply`]. It is itself a JSON
//! text: an array of a [`Style`] and of edits, each an array of [`Edit`], path and operand.
//!
//! ```text
//! ["compact", ["set",["a","b",0],5], ["remove",["c"]], ["truncate","x.y",2]]
//! ```
//!
//! A path is an array of steps, a text for a member and a number for an item, or one text of steps
//! with dots between them, which only the value itself tells apart: a number is an item where it meets
//! an array, and a name with a dot in it, where there is one, makes the path ambiguous.
//!
//! Only what lies on a path is looked into; the rest is copied as bytes, so no number and no escape
//! is ever written anew. A patch that contradicts the value, or that could mean two things, is not
//! applied at all: the row is read from the source again (S5).

use std::borrow::Cow;

/// The most nulls that an item far behind the end of its array makes.
const PADDING: usize = 8 << 20;

/// How the source writes JSON texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `{"b":1,"a":[1,2]}`: no blanks, members in the order in which they came.
    Compact,
    /// `{"b": 1, "aa": [1, 2]}`: members by the length of their names in bytes, then by the bytes.
    Spaced,
}

/// What is done at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    /// The value is there afterwards, whether or not one was; an array grows by nulls up to it.
    Set,
    /// The value takes the place of another.
    Replace,
    /// The value comes new: a member that was not there, or an item before the one of that number.
    Insert,
    /// The value goes.
    Remove,
    /// The array has so many items left.
    Truncate,
}

impl Edit {
    const ALL: [Self; 5] = [Self::Set, Self::Replace, Self::Insert, Self::Remove, Self::Truncate];

    fn name(self) -> &'static str {
        match self {
            Self::Set => "\"set\"",
            Self::Replace => "\"replace\"",
            Self::Insert => "\"insert\"",
            Self::Remove => "\"remove\"",
            Self::Truncate => "\"truncate\"",
        }
    }
}

impl Style {
    const ALL: [Self; 2] = [Self::Compact, Self::Spaced];

    fn name(self) -> &'static str {
        match self {
            Self::Compact => "\"compact\"",
            Self::Spaced => "\"spaced\"",
        }
    }

    /// What stands between two items, and between a name and its value.
    fn separators(self) -> (&'static str, &'static str) {
        match self {
            Self::Compact => (",", ":"),
            Self::Spaced => (", ", ": "),
        }
    }
}

/// A patch being written.
#[derive(Debug)]
pub struct Patch(String);

impl Patch {
    /// A patch that changes nothing yet.
    pub fn new(style: Style) -> Self {
        Self(format!("[{}", style.name()))
    }

    /// A patch that can't be applied to anything: only the source knows the value.
    pub fn unknown() -> Self {
        Self("[".to_owned())
    }

    /// Adds an edit at `path`, with a value or a length for those that have one; all as JSON.
    pub fn edit(&mut self, edit: Edit, path: &str, operand: Option<&str>) {
        let Self(text) = self;
        text.push_str(",[");
        text.push_str(edit.name());
        for part in std::iter::once(path).chain(operand) {
            text.push(',');
            text.push_str(part);
        }
        text.push(']');
    }

    /// The patch as text.
    pub fn finish(mut self) -> String {
        self.0.push(']');
        self.0
    }
}

/// What `patches`, in order, make of `base`; `None` when that can't be told.
pub fn apply<'a>(base: &'a str, patches: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut value = Node::Text(base);
    let mut style = Style::Compact;
    for patch in patches {
        let mut parts = items(patch)?.into_iter();
        let named = parts.next()?;
        style = Style::ALL.into_iter().find(|style| style.name() == named)?;
        for part in parts {
            let order = Order::parse(part, style)?;
            order.carry_out(&mut value, &order.path)?;
        }
    }
    let mut out = String::with_capacity(base.len());
    value.write(style, &mut out);
    Some(out)
}

/// A JSON value, looked into as far as was needed.
#[derive(Debug)]
enum Node<'a> {
    Text(&'a str),
    /// Names as they are written, without their quotes.
    Object(Vec<(&'a str, Node<'a>)>),
    Array(Vec<Node<'a>>),
}

impl<'a> Node<'a> {
    /// Looks one level into it; `None` when it is no container.
    fn open(&mut self) -> Option<()> {
        let Self::Text(text) = *self else { return Some(()) };
        *self = match text.trim_start().as_bytes().first()? {
            b'{' => Self::Object(members(text)?),
            b'[' => Self::Array(items(text)?.into_iter().map(Self::Text).collect()),
            _ => return None,
        };
        Some(())
    }

    fn write(&self, style: Style, out: &mut String) {
        let (between, colon) = style.separators();
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { between });
                    item.write(style, out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { between });
                    out.push('"');
                    out.push_str(name);
                    out.push('"');
                    out.push_str(colon);
                    value.write(style, out);
                }
                out.push('}');
            }
        }
    }
}

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// A member, by its name as it is written, without quotes.
    Name(&'a str),
    Item(usize),
}

/// An edit with its path and operand.
#[derive(Debug)]
struct Order<'a> {
    edit: Edit,
    path: Vec<Step<'a>>,
    /// Whether only the value tells items from members, and dots in names from those between them.
    plain: bool,
    operand: Option<&'a str>,
    style: Style,
}

impl<'a> Order<'a> {
    fn parse(text: &'a str, style: Style) -> Option<Self> {
        let parts = items(text)?;
        let (name, path) = (*parts.first()?, *parts.get(1)?);
        let edit = Edit::ALL.into_iter().find(|edit| edit.name() == name)?;
        let plain = path.starts_with('"');
        let path = match plain {
            true => inner(path)?.split('.').map(Step::Name).collect(),
            false => items(path)?.into_iter().map(step).collect::<Option<_>>()?,
        };
        Some(Self { edit, path, plain, operand: parts.get(2).copied(), style })
    }

    fn value(&self) -> Option<Node<'a>> {
        self.operand.map(Node::Text)
    }

    fn carry_out(&self, node: &mut Node<'a>, path: &[Step<'a>]) -> Option<()> {
        let Some((step, rest)) = path.split_first() else { return self.whole(node) };
        let last = rest.is_empty() && self.edit != Edit::Truncate;
        node.open()?;
        match node {
            Node::Object(members) => {
                let Step::Name(name) = *step else { return None };
                if self.plain && is_ambiguous(members, path) {
                    return None;
                }
                let found = members.iter().position(|(other, _)| *other == name);
                match last {
                    true => self.member(members, name, found),
                    false => self.carry_out(&mut members.get_mut(found?)?.1, rest),
                }
            }
            Node::Array(items) => {
                let at = match *step {
                    Step::Item(at) => at,
                    Step::Name(name) if self.plain => name.parse().ok()?,
                    Step::Name(_) => return None,
                };
                match last {
                    true => self.item(items, at),
                    false => self.carry_out(items.get_mut(at)?, rest),
                }
            }
            Node::Text(_) => None,
        }
    }

    /// The path has led to the value itself.
    fn whole(&self, node: &mut Node<'a>) -> Option<()> {
        match self.edit {
            Edit::Set | Edit::Replace => *node = self.value()?,
            Edit::Truncate => {
                let left = self.operand?.parse().ok()?;
                node.open()?;
                let Node::Array(items) = node else { return None };
                if left > items.len() {
                    return None;
                }
                items.truncate(left);
            }
            Edit::Insert | Edit::Remove => return None,
        }
        Some(())
    }

    fn member(
        &self,
        members: &mut Vec<(&'a str, Node<'a>)>,
        name: &'a str,
        found: Option<usize>,
    ) -> Option<()> {
        match (self.edit, found) {
            (Edit::Set | Edit::Replace, Some(at)) => members.get_mut(at)?.1 = self.value()?,
            (Edit::Set | Edit::Insert, None) => {
                let at = match self.style {
                    Style::Compact => members.len(),
                    Style::Spaced => members.partition_point(|(other, _)| precedes(other, name)),
                };
                members.insert(at, (name, self.value()?));
            }
            (Edit::Remove, Some(at)) => drop(members.remove(at)),
            _ => return None,
        }
        Some(())
    }

    fn item(&self, items: &mut Vec<Node<'a>>, at: usize) -> Option<()> {
        let there = at < items.len();
        match self.edit {
            Edit::Set | Edit::Replace if there => *items.get_mut(at)? = self.value()?,
            Edit::Set if at - items.len() <= PADDING => {
                items.resize_with(at, || Node::Text("null"));
                items.push(self.value()?);
            }
            Edit::Insert => items.insert(at.min(items.len()), self.value()?),
            Edit::Remove if there => drop(items.remove(at)),
            _ => return None,
        }
        Some(())
    }
}

/// Whether a member's name is several of the steps at once.
fn is_ambiguous(members: &[(&str, Node<'_>)], path: &[Step<'_>]) -> bool {
    let mut dotted = members.iter().map(|(name, _)| *name).filter(|name| name.contains('.'));
    dotted.any(|name| {
        let parts = name.split('.').map(Step::Name);
        parts.clone().count() <= path.len() && parts.zip(path).all(|(part, step)| part == *step)
    })
}

/// Whether a member called `one` comes before one called `other` in [`Style::Spaced`].
fn precedes(one: &str, other: &str) -> bool {
    let (one, other) = (unescaped(one), unescaped(other));
    (one.len(), one.as_bytes()) < (other.len(), other.as_bytes())
}

/// The text that stands between quotes.
fn unescaped(inner: &str) -> Cow<'_, str> {
    match inner.contains('\\') {
        false => Cow::Borrowed(inner),
        true => serde_json::from_str::<String>(&format!("\"{inner}\""))
            .map_or(Cow::Borrowed(inner), Cow::Owned),
    }
}

fn step(text: &str) -> Option<Step<'_>> {
    match text.starts_with('"') {
        true => Some(Step::Name(inner(text)?)),
        false => Some(Step::Item(text.parse().ok()?)),
    }
}

/// What stands between the quotes of `text`.
fn inner(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.strip_suffix('"')
}

/// The items of the array that `text` is.
fn items(text: &str) -> Option<Vec<&str>> {
    let mut reader = Reader::inside(text, b'[')?;
    let mut items = Vec::new();
    while reader.goes_on(items.is_empty(), b']')? {
        items.push(reader.value()?);
    }
    Some(items)
}

/// The members of the object that `text` is.
fn members(text: &str) -> Option<Vec<(&str, Node<'_>)>> {
    let mut reader = Reader::inside(text, b'{')?;
    let mut members = Vec::new();
    while reader.goes_on(members.is_empty(), b'}')? {
        let name = inner(reader.value()?)?;
        reader.expect(b':')?;
        members.push((name, Node::Text(reader.value()?)));
    }
    Some(members)
}

/// Goes through a JSON text, value by value, without looking into them.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn inside(text: &'a str, open: u8) -> Option<Self> {
        let mut reader = Self { text, at: 0 };
        reader.expect(open)?;
        Some(reader)
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += blanks;
        rest.get(blanks).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether another value follows; `None` when neither that nor the end of the text does.
    fn goes_on(&mut self, first: bool, close: u8) -> Option<bool> {
        match self.peek()? {
            byte if byte == close => {
                self.at += 1;
                self.peek().is_none().then_some(false)
            }
            _ if first => Some(true),
            _ => self.expect(b',').map(|()| true),
        }
    }

    /// The next value as it stands.
    fn value(&mut self) -> Option<&'a str> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => self.string()?,
            b'{' | b'[' => self.container()?,
            _ => {
                let rest = self.text.as_bytes().get(start..)?;
                let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':');
                let end = |byte: &u8| ends(byte) || byte.is_ascii_whitespace();
                self.at += rest.iter().position(end).unwrap_or(rest.len());
            }
        }
        self.text.get(start..self.at).filter(|text| !text.is_empty())
    }

    fn string(&mut self) -> Option<()> {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            let rest = bytes.get(self.at..)?;
            let found = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += found + 1;
            match rest.get(found)? {
                b'"' => return Some(()),
                _ => self.at += 1,
            }
        }
    }

    fn container(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match *self.text.as_bytes().get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
