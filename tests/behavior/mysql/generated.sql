-- Generated, invisible, numbered and default columns are kept as any other.
-- @opt: tables=t,ident
-- @phase:setup
create table t(id int primary key, n int, twice int as (n * 2) stored, thrice int as (n * 3) virtual, hidden int invisible default 5);
create table ident(id bigint auto_increment primary key, at timestamp default '2024-01-01 00:00:00', v varchar(9));
insert into t(id, n) values (1,1),(2,null);
insert into ident(v) values ('a'),('b');
-- @phase:live
insert into t(id, n, hidden) values (3,3,6);
update t set n=10 where id=1;
insert into ident(v) values ('c');
update ident set v='u' where id=1;
