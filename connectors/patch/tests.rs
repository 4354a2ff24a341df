//! Each edit by example, and chance edits against a model of maps and lists.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn one(base: &str, edit: Edit, path: &str, operand: Option<&str>) -> Option<String> {
    let mut patch = Patch::new(Style::Compact);
    patch.edit(edit, path, operand);
    apply(base, [patch.finish().as_str()])
}

fn set(base: &str, path: &str, value: &str) -> Option<String> {
    one(base, Edit::Set, path, Some(value))
}

#[test]
fn what_lies_beside_the_path_stays_as_it_is() {
    let base = r#"{"n":1.50e+07,"s":"a\u0041\"]}","d":{"x":[1,{"y":2}],"z":null}}"#;
    let wanted = r#"{"n":1.50e+07,"s":"a\u0041\"]}","d":{"x":[1,{"y":true}],"z":null}}"#;
    assert_eq!(set(base, r#"["d","x",1,"y"]"#, "true").as_deref(), Some(wanted));
    assert_eq!(set(base, r#""d.x.1.y""#, "true").as_deref(), Some(wanted));
    let wanted = r#"{"n":1.50e+07,"s":"a\u0041\"]}","d":{"x":[1,{"y":2}]}}"#;
    assert_eq!(one(base, Edit::Remove, r#""d.z""#, None).as_deref(), Some(wanted));
}

#[test]
fn new_members_come_last_and_items_fill_up() {
    assert_eq!(set("{}", r#"["a"]"#, "1").as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(set(r#"{"b":1}"#, r#"["a"]"#, "[]").as_deref(), Some(r#"{"b":1,"a":[]}"#));
    assert_eq!(set("[1]", "[3]", "4").as_deref(), Some("[1,null,null,4]"));
    assert_eq!(set("[1]", r#""0""#, "4").as_deref(), Some("[4]"));
    assert_eq!(set(r#"{"0":1}"#, r#""0""#, "4").as_deref(), Some(r#"{"0":4}"#));
    assert_eq!(one("[1,2,3]", Edit::Truncate, "[]", Some("1")).as_deref(), Some("[1]"));
    let inner = one(r#"{"a":{"b":[1,2]}}"#, Edit::Truncate, r#""a.b""#, Some("0"));
    assert_eq!(inner.as_deref(), Some(r#"{"a":{"b":[]}}"#));
    assert_eq!(set("7", "[]", r#""x""#).as_deref(), Some(r#""x""#));
}

#[test]
fn what_contradicts_the_value_is_not_applied() {
    for (base, path) in [
        ("{}", r#"["a","b"]"#),
        ("5", r#"["a"]"#),
        ("[1]", r#"["a"]"#),
        ("[1]", r#"["0"]"#),
        (r#"{"0":1}"#, "[0]"),
        ("[1", "[0]"),
        (r#"{"a" 1}"#, r#"["a"]"#),
        ("[1]", "[99999999999]"),
    ] {
        assert_eq!(set(base, path, "1"), None, "{path} of {base}");
    }
    assert_eq!(one("{}", Edit::Remove, r#"["a"]"#, None), None);
    assert_eq!(one("{}", Edit::Replace, r#"["a"]"#, Some("1")), None);
    assert_eq!(one(r#"{"a":1}"#, Edit::Insert, r#"["a"]"#, Some("1")), None);
    assert_eq!(one("[1]", Edit::Truncate, "[]", Some("2")), None);
    assert_eq!(apply("{}", [Patch::unknown().finish().as_str()]), None);
    for broken in ["", "null", "[]", "{}", r#"["compact",["set"]]"#, r#"["other"]"#] {
        assert_eq!(apply("{}", [broken]), None, "{broken}");
    }
}

#[test]
fn a_name_with_a_dot_makes_a_plain_path_ambiguous() {
    let base = r#"{"a":{"b":1,"c.d":2},"a.b":3}"#;
    assert_eq!(set(base, r#""a.b""#, "9"), None);
    assert_eq!(set(base, r#""a.c.d""#, "9"), None);
    let wanted = r#"{"a":{"b":1,"c.d":2},"a.b":9}"#;
    assert_eq!(set(base, r#"["a.b"]"#, "9").as_deref(), Some(wanted));
    let wanted = r#"{"a":{"b":9,"c.d":2},"a.b":3}"#;
    assert_eq!(set(base, r#"["a","b"]"#, "9").as_deref(), Some(wanted));
    assert!(set(r#"{"a":{"e":1},"a.b":3}"#, r#""a.e""#, "9").is_some());
}

#[test]
fn in_the_spaced_style_names_are_in_the_order_of_their_lengths() {
    let mut patch = Patch::new(Style::Spaced);
    for (name, value) in [("bb", "1"), ("a", "2"), ("aa", "3")] {
        patch.edit(Edit::Insert, &format!("[\"{name}\"]"), Some(value));
    }
    let patch = patch.finish();
    let wanted = r#"{"a": 2, "c": 0, "aa": 3, "bb": 1, "ccc": [1, 2]}"#;
    assert_eq!(apply(r#"{"c": 0, "ccc": [1, 2]}"#, [patch.as_str()]).as_deref(), Some(wanted));
}

#[test]
fn patches_follow_one_another() {
    let patches: Vec<String> = (0..3)
        .map(|n| {
            let mut patch = Patch::new(Style::Compact);
            patch.edit(Edit::Insert, "[0]", Some(&n.to_string()));
            patch.finish()
        })
        .collect();
    let all = apply("[]", patches.iter().map(String::as_str));
    assert_eq!(all.as_deref(), Some("[2,1,0]"));
}

/// A path into `value` and what lies there: as many steps as there are numbers, or fewer.
fn walk<'a>(value: &'a Json, picks: &[usize]) -> (Vec<Json>, &'a Json) {
    let (mut path, mut here) = (Vec::new(), value);
    for pick in picks {
        let next = match here {
            Json::Array(items) if !items.is_empty() => {
                let at = pick % items.len();
                (json!(at), &items[at])
            }
            Json::Object(members) if !members.is_empty() => {
                let (name, value) = members.iter().nth(pick % members.len()).unwrap();
                (json!(name), value)
            }
            _ => break,
        };
        path.push(next.0);
        here = next.1;
    }
    (path, here)
}

fn at<'a>(value: &'a mut Json, path: &[Json]) -> &'a mut Json {
    path.iter().fold(value, |here, step| match step {
        Json::String(name) => &mut here[name.as_str()],
        step => &mut here[step.as_u64().unwrap() as usize],
    })
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<i32>().prop_map(Json::from),
        "[a\"\\\\.\\[\\]{},: é]{0,4}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[a-c\"\\\\.]{0,2}", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

/// Does to the model what an edit says, and says it; `None` where the edit has no place.
fn step(model: &mut Json, picks: &[usize], kind: u8, new: &Json) -> Option<(Edit, Json, Json)> {
    let (mut path, here) = walk(model, picks);
    let here = here.clone();
    match (kind, here) {
        (0, _) => {
            *at(model, &path) = new.clone();
            Some((Edit::Replace, Json::Array(path), new.clone()))
        }
        (1, Json::Array(items)) => {
            let place = picks.first()? % (items.len() + 1);
            at(model, &path).as_array_mut()?.insert(place, new.clone());
            path.push(json!(place));
            Some((Edit::Insert, Json::Array(path), new.clone()))
        }
        (1, Json::Object(_)) => {
            at(model, &path).as_object_mut()?.insert("new".to_owned(), new.clone());
            path.push(json!("new"));
            Some((Edit::Set, Json::Array(path), new.clone()))
        }
        (2, Json::Array(items)) => {
            let left = picks.first()? % (items.len() + 1);
            at(model, &path).as_array_mut()?.truncate(left);
            Some((Edit::Truncate, Json::Array(path), json!(left)))
        }
        (3, _) => {
            let last = path.pop()?;
            match (at(model, &path), &last) {
                (Json::Array(items), place) => drop(items.remove(place.as_u64()? as usize)),
                (Json::Object(members), name) => drop(members.remove(name.as_str()?)?),
                _ => return None,
            }
            path.push(last);
            Some((Edit::Remove, Json::Array(path), Json::Null))
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_edits_do_what_the_model_does(
        base in value(),
        edits in proptest::collection::vec(
            (proptest::collection::vec(0..9_usize, 0..4), 0..4_u8, value()), 1..6),
        apart: bool,
    ) {
        let mut model = base.clone();
        let mut patches = vec![Patch::new(Style::Compact)];
        for (picks, kind, new) in &edits {
            let Some((edit, path, operand)) = step(&mut model, picks, *kind, new) else { continue };
            let operand = (edit != Edit::Remove).then(|| operand.to_string());
            patches.last_mut().unwrap().edit(edit, &path.to_string(), operand.as_deref());
            if apart {
                patches.push(Patch::new(Style::Compact));
            }
        }
        let patches: Vec<String> = patches.into_iter().map(Patch::finish).collect();
        let base = base.to_string();
        let told = apply(&base, patches.iter().map(String::as_str));
        let told: Option<Json> = told.and_then(|text| serde_json::from_str(&text).ok());
        prop_assert_eq!(told, Some(model));
    }

    #[test]
    fn no_text_is_too_bad_to_be_patched(base in ".{0,40}", patch in ".{0,40}") {
        let _ = apply(&base, [patch.as_str()]);
        let framed = format!("[\"compact\",[\"set\",{patch},{base}]]");
        let _ = apply(&base, [framed.as_str()]);
        let _ = set(&base, "\"a.b\"", "1");
    }
}
