-- Columns added, dropped, renamed, widened, with and without rows in between.
-- @opt: tables=added,dropped,renamed,widened,silent
-- @phase:setup
create table added(id int primary key, v text);
create table dropped(id int primary key, v text, w int);
create table renamed(id int primary key, v text);
create table widened(id int primary key, s smallint, i int, f real, c varchar(5), n numeric(6,2));
create table silent(id int primary key);
insert into added values (1, 'a'), (2, 'b');
insert into dropped values (1, 'a', 1), (2, 'b', 2);
insert into renamed values (1, 'a'), (2, 'b');
insert into widened values (1, 32767, 2147483647, 1.5, 'abcde', 1234.56), (2, null, null, null, null, null);
insert into silent values (1), (2);
-- @phase:live
alter table added add column plain text;
insert into added values (3, 'c', 'plain');
alter table added add column d int not null default 7;
insert into added values (4, 'd', 'p', 8);
alter table added add column e timestamptz default '2024-01-02 03:04:05+00';
update added set v = 'u' where id = 1;
update dropped set v = 'last' where id = 1;
alter table dropped drop column v;
insert into dropped values (3, 3);
update dropped set w = 20 where id = 2;
alter table renamed rename column v to name;
insert into renamed values (3, 'c');
update renamed set name = 'u' where id = 1;
alter table widened alter s type int;
alter table widened alter i type bigint;
alter table widened alter f type float8;
alter table widened alter c type text;
alter table widened alter n type numeric(12,2);
insert into widened values (3, 100000, 9223372036854775807, 1e300, 'much longer', 1234567890.12);
update widened set i = 5 where id = 2;
alter table silent add column n int not null default 5;
