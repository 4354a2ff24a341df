-- Tables without a key, whole rows as identity: duplicates are counted, NULLs compare as equal.
-- @opt: tables=dup,nulls
-- @phase:setup
create table dup(a int, b text);
alter table dup replica identity full;
insert into dup select g % 5, 'b' || g % 3 from generate_series(1, 150) g;
create table nulls(a int, b text, c float8);
alter table nulls replica identity full;
insert into nulls values (null, null, null), (null, null, null), (1, null, 'NaN'), (1, null, '-0'), (1, '', 0);
-- @phase:live
delete from dup where ctid in (select ctid from dup where a = 1 limit 4);
update dup set b = 'changed' where ctid in (select ctid from dup where a = 2 limit 3);
insert into dup select 7, 'seven' from generate_series(1, 10);
delete from dup where ctid in (select ctid from dup where a = 7 limit 9);
update dup set a = a where a = 3;
begin;
insert into dup values (8, 'x'), (8, 'x'), (8, 'x');
update dup set b = 'y' where ctid = (select min(ctid) from dup where a = 8);
delete from dup where ctid = (select min(ctid) from dup where a = 8 and b = 'x');
commit;
delete from nulls where ctid = (select min(ctid) from nulls where a is null);
update nulls set b = 'n' where c = 'NaN';
insert into nulls values (null, null, null);
