-- Row images that leave columns out: long values that did not change, and every kind of replica identity.
-- @opt: tables=t,f,i
-- @phase:setup
create table t(id int primary key, a text, big text, n int);
create table f(id int primary key, a text, big text, n int);
create table i(id int primary key, k int not null, big text, n int);
alter table t alter big set storage external;
alter table f alter big set storage external;
alter table i alter big set storage external;
alter table f replica identity full;
create unique index i_k on i(k);
alter table i replica identity using index i_k;
insert into t select g, 'a', repeat(md5(g::text), 200), g from generate_series(1, 6) g;
insert into f select * from t;
insert into i select id, id * 10, big, n from t;
-- @phase:live
update t set n = n + 1;
update f set n = n + 1;
update i set n = n + 1;
update t set id = 100, a = 'moved' where id = 1;
update f set id = 100, a = 'moved' where id = 1;
update i set id = 100 where id = 1;
update i set k = 99 where id = 2;
update t set big = null where id = 2;
update f set big = 'short' where id = 2;
begin;
update t set n = 0 where id = 3;
update t set id = 33 where id = 3;
update t set a = 'last' where id = 33;
commit;
delete from t where id = 4;
delete from f where id = 4;
delete from i where id = 4;
