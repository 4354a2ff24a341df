-- One transaction of 200,000 rows and more, seen at once or not at all; one that is rolled back.
-- @opt: tables=t,u streaming=on
-- @phase:setup
create table t(id int primary key, v text, n int);
create table u(id int primary key, v text);
insert into t select g, 'old', 0 from generate_series(1, 1000) g;
insert into u select g, 'u' from generate_series(1, 10) g;
-- @phase:live
begin;
insert into t select g, md5(g::text), g from generate_series(1001, 200000) g;
update t set v = 'first' where id <= 1000;
update u set v = 'w';
delete from t where id % 1000 = 0;
savepoint a;
insert into t select g, 'undone', g from generate_series(300001, 320000) g;
rollback to a;
update t set n = -n where id % 4 = 0;
commit;
begin;
update t set v = 'never';
rollback;
insert into u values (11, 'after');
