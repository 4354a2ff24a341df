-- Columns that come, go, are renamed and changed.
-- @opt: tables=added,filled,dropped,renamed,changed
-- @phase:setup
create table added(id int primary key, v text);
create table filled(id int primary key, v text);
create table dropped(id int primary key, v text, w int);
create table renamed(id int primary key, v text);
create table changed(id int primary key, v int);
insert into added values (1,'a'),(2,'b');
insert into filled values (1,'a'),(2,'b');
insert into dropped values (1,'a',1),(2,'b',2);
insert into renamed values (1,'a');
insert into changed values (1,1),(2,null);
-- @phase:live
alter table added add column n int null, add index i (n);
insert into added values (3,'c',3);
update added set n=1 where id=1;
alter table filled add column n int not null default 7;
insert into filled values (3,'c',8);
alter table dropped drop column w;
insert into dropped values (3,'c');
alter table renamed change column v w text;
insert into renamed values (2,'b');
alter table changed modify v bigint;
insert into changed values (3,5000000000);
