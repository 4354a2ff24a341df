//! The database itself: visibility, statements, retention.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_row_is_changed_again_only_when_its_change_is_visible() {
    let server = server(3);
    let mut server = lock(&server);
    let held = |server: &mut Server, op| server.commit_with('b', vec![op], Visibility::Held);
    let first = held(&mut server, set(1, 7, 1)).unwrap();
    let other = held(&mut server, set(2, 2, 1)).unwrap();
    assert!(!server.visible().contains(&first));
    let second = held(&mut server, Insert(t(), row(1, 1))).unwrap();
    let visible = server.visible();
    assert!(visible.contains(&first) && !visible.contains(&other) && !visible.contains(&second));
    server.commit('a', vec![Truncate(t())]).unwrap();
    assert_eq!(server.visible(), server.end());
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_key_are_counted() {
    let server = server(0);
    let mut server = lock(&server);
    let one = vec![Cell::Int(1), Cell::Text("x".to_owned())];
    let id = keyless();
    let columns = [("n", Kind::Int), ("big", Kind::Toasted)];
    let inserts = (0..3).map(|_| Insert(id.clone(), one.clone()));
    let create = Create(Definition::keyless(&id, &columns));
    server.commit('a', [create].into_iter().chain(inserts).collect()).unwrap();
    server.commit('a', vec![Delete(id.clone(), one.clone())]).unwrap();
    let update = Update(id.clone(), one.clone(), vec![Some(Cell::Int(2)), None]);
    server.commit('b', vec![update]).unwrap();
    let two = vec![Cell::Int(2), Cell::Text("x".to_owned())];
    assert_eq!(server.contents(&id).unwrap(), [one.clone(), two]);
    assert_eq!(server.contents_at(&gtids("a:1-3"), &id).unwrap(), vec![one; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_transaction_never_was() {
    let server = server(2);
    let mut server = lock(&server);
    let before = (server.end(), server.contents(&t()));
    assert!(server.commit('a', vec![set(1, 1, 9), set(1, 0, 9)]).is_err());
    assert!(server.commit('a', vec![Truncate(t()), Delete(t(), key(1))]).is_err());
    assert_eq!((server.end(), server.contents(&t())), before);
}

#[tokio::test(start_paused = true)]
async fn a_fail_over_changes_the_order_and_no_row() {
    let server = server(8);
    for id in 0..8 {
        lock(&server).commit('b', vec![set(id, id, id)]).unwrap();
        lock(&server).commit('a', vec![set(id, id + 100, 2 * id)]).unwrap();
    }
    let mut server = lock(&server);
    let order: Vec<Gtid> = server.history().collect();
    server.fail_over();
    assert_ne!(order, server.history().collect::<Vec<_>>());
    assert_eq!(server.contents(&t()), server.contents_at(&server.end(), &t()));
    let view = server.view(|_| true);
    let mut rows: Vec<Row> = view.tables[&t()].rows().cloned().collect();
    rows.sort_unstable();
    assert_eq!(Some(rows), server.contents(&t()));
}

#[tokio::test(start_paused = true)]
async fn the_log_is_kept_as_long_as_the_settings_say() {
    let server = server(1);
    let mut source = Scripted::new(&server);
    let start = Gtids::new();
    let mut stream = source.stream(&start, &[]).await.unwrap();
    stream.acknowledge(&gtids("a:1"));
    assert_eq!(lock(&server).acknowledged(), gtids("a:1"));
    assert_eq!(source.stream(&start, &[]).await.unwrap_err().kind(), ErrorKind::Gap);
    assert_eq!(source.establish(&[]).await.unwrap().oldest, gtids("a:1"));
    lock(&server).settings.retention = Retention::SkipAhead;
    let mut ahead = source.stream(&start, &[]).await.unwrap();
    assert_eq!(drain(&mut ahead).await.0.begun, [Gtid { origin: 'a', number: 2 }]);
    lock(&server).settings.retention = Retention::Keep;
    assert!(source.stream(&start, &[]).await.is_ok());
    lock(&server).purge(&gtids("a:1-2"));
    assert_eq!(stream.next().await.unwrap_err().kind(), ErrorKind::Gap);
    let identity = source.establish(&[]).await.unwrap().identity;
    lock(&server).change_identity();
    assert_eq!(stream.next().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_ne!(source.establish(&[]).await.unwrap().identity, identity);
}
