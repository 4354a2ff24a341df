-- Generated, identity and default columns: a generated one is right or absent, never empty.
-- @opt: tables=t,ident optional=twice
-- @phase:setup
create table t(id int primary key, n int, twice int generated always as (n * 2) stored);
create table ident(id int generated always as identity primary key, at timestamptz default '2024-01-01 00:00+00', v text);
insert into t(id, n) values (1, 1), (2, null);
insert into ident(v) values ('a'), ('b');
-- @phase:live
insert into t(id, n) values (3, 3);
update t set n = 10 where id = 1;
insert into ident(v) values ('c');
update ident set v = 'u' where id = 1;
