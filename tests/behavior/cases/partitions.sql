-- Partitioned tables: rows that move between partitions, partitions attached, detached, emptied.
-- @opt: tables=m,h
-- @phase:setup
create table m(id int, v text, primary key(id)) partition by range(id);
create table m1 partition of m for values from (0) to (100);
create table m2 partition of m for values from (100) to (200);
insert into m select g, 'v' || g from generate_series(1, 150) g;
create table h(k text primary key, v int) partition by hash(k);
create table h0 partition of h for values with (modulus 2, remainder 0);
create table h1 partition of h for values with (modulus 2, remainder 1);
insert into h select 'k' || g, g from generate_series(1, 60) g;
-- @phase:live
update m set id = id + 100 where id between 60 and 65;
delete from m where id = 120;
create table m3 partition of m for values from (200) to (300);
insert into m values (250, 'new');
create table m4(id int primary key, v text);
insert into m4 values (301, 'attached');
alter table m attach partition m4 for values from (300) to (400);
insert into m values (302, 'after');
update h set v = -v where v % 2 = 0;
delete from h where v = 7;
