-- Keys that change, swap, rotate, come back; with large values that the log does not repeat.
-- @opt: tables=t,composite,by_index,whole
-- @phase:setup
create table t(id int primary key, note text, big text);
alter table t alter big set storage external;
insert into t select g, 'n' || g, repeat(md5(g::text), 200) from generate_series(1, 40) g;
create table composite(a int, b text, v text, big text, primary key (b, a));
alter table composite alter big set storage external;
insert into composite select g % 5, 'b' || g, 'v', repeat(md5(g::text), 200) from generate_series(1, 30) g;
create table by_index(id int primary key, code text not null unique, v text);
alter table by_index replica identity using index by_index_code_key;
insert into by_index select g, 'c' || g, 'v' || g from generate_series(1, 20) g;
create table whole(id int primary key, v text, big text);
alter table whole alter big set storage external;
alter table whole replica identity full;
insert into whole select g, 'v' || g, repeat(md5(g::text), 200) from generate_series(1, 20) g;
-- @phase:live
update t set id = 100 where id = 1;
begin;
update t set id = -1 where id = 2;
update t set id = 2 where id = 3;
update t set id = 3 where id = -1;
commit;
begin;
update t set id = -1 where id = 4;
update t set id = 4 where id = 5;
update t set id = 5 where id = 6;
update t set id = 6, note = 'rotated' where id = -1;
commit;
begin;
delete from t where id = 7;
update t set id = 7 where id = 8;
insert into t values (8, 'new eight', 'small');
commit;
update t set id = id + 1000 where id between 20 and 30;
update t set id = id - 1000 where id between 1020 and 1025;
update composite set a = a + 10 where b in ('b1', 'b2', 'b3');
update composite set b = b || '-moved', v = 'w' where a = 4;
delete from composite where a = 2;
update by_index set id = id + 100 where id <= 5;
update by_index set code = 'x' || code where id between 10 and 12;
delete from by_index where code = 'c15';
update whole set id = id + 100 where id <= 5;
update whole set v = 'u' where id > 10;
delete from whole where id = 9;
