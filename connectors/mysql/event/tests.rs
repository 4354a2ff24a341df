use std::io::Write;

use proptest::prelude::*;

use super::*;

/// An event as the server writes it.
pub fn written(kind: u8, body: &[u8], checksum: bool) -> Bytes {
    let length = HEADER + body.len() + if checksum { 4 } else { 0 };
    let mut out = 100_u32.to_le_bytes().to_vec();
    out.push(kind);
    out.extend(7_u32.to_le_bytes());
    out.extend((length as u32).to_le_bytes());
    out.extend([0; 6]);
    out.extend(body);
    if checksum {
        let sum = crc32fast::hash(&out);
        out.extend(sum.to_le_bytes());
    }
    out.into()
}

fn event(kind: u8, body: &[u8]) -> Event {
    Event::parse(written(kind, body, false), &mut Checksums(false)).unwrap()
}

#[test]
fn a_flipped_bit_is_noticed() {
    let mut checksums = Checksums(true);
    let good = written(kind::XID, &[1; 8], true);
    assert_eq!(Event::parse(good.clone(), &mut checksums).unwrap().body.len(), 8);
    for at in [4, 20, 28] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        assert!(Event::parse(bad.into(), &mut checksums).is_err(), "{at}");
    }
    assert!(Event::parse(good.slice(..good.len() - 1), &mut checksums).is_err());
}

#[test]
fn the_description_of_the_format_turns_checksums_on_and_off() {
    let mut checksums = Checksums(false);
    let body = |how: u8| [&[0; 60][..], &[how]].concat();
    Event::parse(written(kind::FORMAT_DESCRIPTION, &body(1), true), &mut checksums).unwrap();
    assert!(checksums.0);
    Event::parse(written(kind::FORMAT_DESCRIPTION, &body(0), true), &mut checksums).unwrap();
    assert!(!checksums.0);
}

#[test]
fn transactions_have_names() {
    let body = [&[0][..], &[7; 16], &5_u64.to_le_bytes(), &[2; 17]].concat();
    let expected = Gtid::MySql(Origin { uuid: [7; 16], tag: String::new() }, 5);
    assert_eq!(event(kind::GTID, &body).read().unwrap(), Said::Begin(expected, Unit::Unknown));
    let body = [&9_u64.to_le_bytes()[..], &3_u32.to_le_bytes(), &[1], &[0; 6]].concat();
    let expected = Gtid::MariaDb { domain: 3, server: 7, number: 9 };
    let said = event(kind::MARIA_GTID, &body);
    assert_eq!(said.read().unwrap(), Said::Begin(expected, Unit::Statement));
}

#[test]
fn numbers_are_unpacked() {
    assert_eq!(packed(&mut Input(&[20])), Some(10));
    assert_eq!(packed(&mut Input(&[0x01 | (0x2c << 2) as u8, 0x04])), Some(300));
    assert_eq!(packed(&mut Input(&[0xff, 1, 0, 0, 0, 0, 0, 0, 0])), Some(1));
    assert_eq!((zigzag(2), zigzag(1)), (1, -1));
}

#[test]
fn a_statement_stands_behind_its_status() {
    let mut body = vec![0; 8];
    body.push(2);
    body.extend([0, 0, 3, 0, 9, 9, 9]);
    body.extend(b"db\0BEGIN");
    let said = event(kind::QUERY, &body);
    assert_eq!(said.read().unwrap(), Said::Query(Query { schema: b"db", text: b"BEGIN" }));
}

#[test]
fn a_payload_is_expanded_event_by_event() {
    let inner = [written(kind::XID, &[1; 8], false), written(kind::QUERY, &[2; 30], false)];
    let plain = inner.concat();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let size = |size: usize| vec![1, 1, size as u8, 0];
    // How it is packed: zstd, and not at all.
    for (how, payload) in [(vec![2, 1, 0], packed), (vec![2, 3, 0xfc, 255, 0], plain)] {
        let body: Bytes = [how, size(payload.len()), payload].concat().into();
        let mut opened = Payload::open(&body).unwrap();
        let kinds: Vec<_> =
            std::iter::from_fn(|| opened.next_event().unwrap()).map(|event| event.kind).collect();
        assert_eq!(kinds, [kind::XID, kind::QUERY]);
        let cut = body.slice(..body.len() - 3);
        assert!(Payload::open(&cut).is_err());
    }
}

#[test]
fn compressed_rows_are_expanded() {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"rows").unwrap();
    let compressed = encoder.finish().unwrap();
    let head = [1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    let body = [&head[..], &[0x81, 4], &compressed].concat();
    let expanded = expand(event(kind::MARIA_WRITE_COMPRESSED_V1, &body)).unwrap();
    assert_eq!(expanded.kind, kind::WRITE_ROWS_V1);
    let Said::Rows(rows) = expanded.read().unwrap() else { panic!("no rows") };
    assert_eq!((rows.number, rows.columns, rows.images), (1, 1, &b"rows"[..]));
    let longer = [&head[..], &[0x81, 5], &compressed].concat();
    assert!(expand(event(kind::MARIA_WRITE_COMPRESSED_V1, &longer)).is_err());
}

#[test]
fn what_is_not_understood_is_not_passed_over() {
    assert!(event(99, &[]).read().is_err());
    let ignorable = Event { flags: IGNORABLE, ..event(99, &[]) };
    assert_eq!(ignorable.read().unwrap(), Said::Nothing);
}

proptest! {
    #[test]
    fn no_bytes_panic(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let read = Event::parse(written(kind, &body, false), &mut Checksums(false));
        prop_assume!(read.is_ok());
        let event = read.unwrap();
        let _ = event.read();
        if let Ok(mut payload) = Payload::open(&event.body) {
            let _ = payload.next_event();
        }
        let _ = expand(event);
    }
}
