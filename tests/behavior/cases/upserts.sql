-- Inserts, updates that leave a large value alone, deletes, several changes of one key.
-- @opt: tables=t,quiet
-- @phase:setup
create table t(id int primary key, note text, big text, n int not null default 0);
create table quiet(id int primary key, v text);
alter table t alter big set storage external;
insert into t select g, 'n' || g, repeat(md5(g::text), 200), g from generate_series(1, 500) g;
insert into quiet select g, 'q' || g from generate_series(1, 50) g;
-- @phase:live
update t set n = n + 1 where id % 3 = 0;
update t set note = 'again' where id between 10 and 20;
delete from t where id % 7 = 0;
begin;
insert into t values (1001, 'new', repeat('x', 9000), 1);
update t set note = 'twice' where id = 1001;
update t set n = 5 where id = 1001;
delete from t where id = 1;
insert into t values (1, 'reborn', 'small', 0);
update t set n = 9 where id = 1;
commit;
begin;
insert into t values (1002, 'short-lived', null, 0);
delete from t where id = 1002;
commit;
begin;
delete from t where id = 2;
rollback;
insert into t values (3, 'conflict', null, 0) on conflict (id) do update set note = excluded.note;
update t set big = null where id = 4;
update t set big = big || 'tail' where id = 5;
update t set note = note;
