//! Postgres' types → lake types.
//!
//! | Postgres | lake |
//! |---|---|
//! | `bool` | [`Type::Bool`] |
//! | `int2`, `int4`, `int8` | [`Type::Int16`], [`Type::Int32`], [`Type::Int64`] |
//! | `oid`, `xid` | [`Type::Int64`] |
//! | `float4`, `float8` | [`Type::Float32`], [`Type::Float64`] (NaN and infinities kept) |
//! | `numeric(p,s)` of at most 38 digits | [`Type::Decimal`]; `numeric(3,5)` is `decimal(5,5)`, `numeric(5,-2)` is `decimal(7,0)` |
//! | any other `numeric` | [`Type::Numeric`]: its text, every digit kept |
//! | `text`, `varchar`, `char(n)` (padding kept), `name`, `"char"` | [`Type::Text`] |
//! | `bytea` | [`Type::Binary`] |
//! | `date` | [`Type::Date`] |
//! | `timestamptz` | [`Type::Timestamp`] |
//! | `timestamp` | [`Type::LocalTimestamp`] |
//! | an array of a base or enum type | [`Type::List`] of its element's lake type (one dimension) |
//! | a domain | what its base type is |
//! | everything else (`uuid`, `json`, `time`, `interval`, enums, ranges, composites …) | [`Type::Text`]: the server's own text output |
//!
//! A column listed in `text_columns` is [`Type::Text`] (a `numeric` one [`Type::Numeric`], which is
//! text that also knows 1.0 = 1.00 as a key).

use std::collections::HashMap;

use crate::schema::Type;

/// The object ids of built-in types, which never change (`pg_type.dat`).
pub mod oid {
    #![allow(missing_docs, reason = "each is the type of its name")]
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const CHAR: u32 = 18;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const JSON: u32 = 114;
    pub const CIDR: u32 = 650;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const MACADDR8: u32 = 774;
    pub const MACADDR: u32 = 829;
    pub const INET: u32 = 869;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// What the catalog says about a type, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    /// `pg_type.typtype`: `b` base, `e` enum, `d` domain, `c` composite, `r` range …
    pub class: char,
    /// The type below a domain, with its modifier.
    pub base: Option<(u32, i32)>,
    /// The element type of a true array.
    pub element: Option<u32>,
    /// `pg_type.typdelim`: what separates elements of an array of this type.
    pub delimiter: char,
}

/// Types by object id.
pub type Types = HashMap<u32, PgType>;

/// The lake type of a column of type `oid` with modifier `typmod`.
pub fn lake_type(types: &Types, oid: u32, typmod: i32) -> Type {
    let (oid, typmod) = base(types, oid, typmod);
    let element = types.get(&oid).and_then(|kind| kind.element);
    match element.and_then(|element| Some((element, types.get(&element)?))) {
        Some((element, kind)) if matches!(kind.class, 'b' | 'e') && kind.delimiter == ',' => {
            Type::List(Box::new(scalar(element, typmod)))
        }
        _ => scalar(oid, typmod),
    }
}

/// The lake type of the same column when the configuration wants text.
pub fn text_type(types: &Types, oid: u32, typmod: i32) -> Type {
    match base(types, oid, typmod).0 {
        oid::NUMERIC => Type::Numeric,
        _ => Type::Text,
    }
}

/// The type below all domains.
pub fn base(types: &Types, mut oid: u32, mut typmod: i32) -> (u32, i32) {
    // Domains can't be circular; the bound is for a catalog that says otherwise.
    for _ in 0..64 {
        match types.get(&oid).and_then(|kind| kind.base) {
            Some((below, modifier)) => (oid, typmod) = (below, modifier.max(typmod)),
            None => break,
        }
    }
    (oid, typmod)
}

/// Whether two keys of this type are equal exactly when their texts (of a `numeric`: without
/// trailing zeros) are. `modified` says whether the type has a length.
pub fn is_exact_key(types: &Types, oid: u32, typmod: i32) -> bool {
    let (oid, typmod) = base(types, oid, typmod);
    match oid {
        // Without a length trailing blanks are stored, and ignored in comparisons.
        oid::BPCHAR => typmod >= 0,
        oid::BOOL
        | oid::BYTEA
        | oid::CHAR
        | oid::NAME
        | oid::INT8
        | oid::INT2
        | oid::INT4
        | oid::TEXT
        | oid::OID
        | oid::XID
        | oid::CIDR
        | oid::FLOAT4
        | oid::FLOAT8
        | oid::MACADDR8
        | oid::MACADDR
        | oid::INET
        | oid::VARCHAR
        | oid::DATE
        | oid::TIME
        | oid::TIMESTAMP
        | oid::TIMESTAMPTZ
        | oid::NUMERIC
        | oid::UUID => true,
        _ => types.get(&oid).is_some_and(|kind| kind.class == 'e'),
    }
}

fn scalar(oid: u32, typmod: i32) -> Type {
    match oid {
        oid::BOOL => Type::Bool,
        oid::INT2 => Type::Int16,
        oid::INT4 => Type::Int32,
        oid::INT8 | oid::OID | oid::XID => Type::Int64,
        oid::FLOAT4 => Type::Float32,
        oid::FLOAT8 => Type::Float64,
        oid::NUMERIC => numeric(typmod),
        oid::BYTEA => Type::Binary,
        oid::DATE => Type::Date,
        oid::TIMESTAMP => Type::LocalTimestamp,
        oid::TIMESTAMPTZ => Type::Timestamp,
        _ => Type::Text,
    }
}

/// `numeric(p,s)` travels as `((p << 16) | (s & 0x7ff)) + 4`, s in two's complement of 11 bits.
fn numeric(typmod: i32) -> Type {
    let Some(packed) = typmod.checked_sub(4).filter(|packed| *packed >= 0) else {
        return Type::Numeric;
    };
    let precision = packed >> 16 & 0xffff;
    let scale = ((packed & 0x7ff) ^ 0x400) - 0x400;
    let (precision, scale) = match scale {
        ..0 => (precision - scale, 0),
        _ => (precision.max(scale), scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) => Type::Decimal { precision, scale },
        _ => Type::Numeric,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typmod(precision: i32, scale: i32) -> i32 {
        (precision << 16 | scale & 0x7ff) + 4
    }

    fn types() -> Types {
        let kind = |class, base, element, delimiter| PgType { class, base, element, delimiter };
        HashMap::from([
            (oid::NUMERIC, kind('b', None, None, ',')),
            (1231, kind('b', None, Some(oid::NUMERIC), ',')),
            (603, kind('b', None, None, ';')),
            (1020, kind('b', None, Some(603), ',')),
            (50_000, kind('d', Some((oid::NUMERIC, typmod(10, 2))), None, ',')),
            (50_001, kind('d', Some((50_000, -1)), None, ',')),
            (50_002, kind('b', None, Some(50_000), ',')),
            (50_003, kind('d', Some((1231, -1)), None, ',')),
            (50_004, kind('e', None, None, ',')),
        ])
    }

    #[test]
    fn numerics_become_decimals_where_they_fit() {
        assert_eq!(numeric(-1), Type::Numeric);
        assert_eq!(numeric(typmod(38, 2)), Type::Decimal { precision: 38, scale: 2 });
        assert_eq!(numeric(typmod(50, 10)), Type::Numeric);
        assert_eq!(numeric(typmod(3, 5)), Type::Decimal { precision: 5, scale: 5 });
        assert_eq!(numeric(typmod(5, -2)), Type::Decimal { precision: 7, scale: 0 });
        assert_eq!(numeric(typmod(38, -1)), Type::Numeric);
        assert_eq!(numeric(typmod(3, 1000)), Type::Numeric);
    }

    #[test]
    fn domains_and_arrays_are_seen_through() {
        let types = types();
        let decimal = Type::Decimal { precision: 10, scale: 2 };
        assert_eq!(lake_type(&types, 50_001, -1), decimal);
        assert_eq!(lake_type(&types, 1231, -1), Type::List(Type::Numeric.into()));
        assert_eq!(lake_type(&types, 1231, typmod(10, 2)), Type::List(decimal.into()));
        assert_eq!(lake_type(&types, 50_003, -1), Type::List(Type::Numeric.into()));
        // An array over a domain, and one whose elements are separated by ';', stay text.
        assert_eq!(lake_type(&types, 50_002, -1), Type::Text);
        assert_eq!(lake_type(&types, 1020, -1), Type::Text);
        assert_eq!(text_type(&types, 50_001, -1), Type::Numeric);
        assert_eq!(text_type(&types, oid::DATE, -1), Type::Text);
    }

    #[test]
    fn keys_are_exact_or_not() {
        let types = types();
        assert!(is_exact_key(&types, 50_001, -1));
        assert!(is_exact_key(&types, 50_004, -1));
        assert!(is_exact_key(&types, oid::BPCHAR, 12));
        assert!(!is_exact_key(&types, oid::BPCHAR, -1));
        assert!(!is_exact_key(&types, 3802, -1));
    }
}
