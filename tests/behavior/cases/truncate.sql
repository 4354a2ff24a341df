-- TRUNCATE alone, with inserts around it in one transaction, cascaded, rolled back.
-- @opt: tables=alone,around,parent,child,back,twice
-- @phase:setup
create table alone(id int primary key);
create table around(id int primary key, v text);
create table parent(id int primary key);
create table child(id int primary key, p int references parent);
create table back(id int primary key);
create table twice(id int primary key);
insert into alone select generate_series(1, 100);
insert into around select g, 'v' from generate_series(1, 100) g;
insert into parent select generate_series(1, 5);
insert into child select g, g from generate_series(1, 5) g;
insert into back select generate_series(1, 5);
insert into twice select generate_series(1, 5);
-- @phase:live
truncate alone;
begin;
insert into around values (1000, 'lost');
update around set v = 'w' where id < 10;
truncate around;
insert into around values (1, 'kept'), (2000, 'kept');
commit;
update around set v = 'after' where id = 1;
truncate parent cascade;
insert into parent values (9);
begin;
truncate back;
rollback;
truncate twice;
insert into twice values (1);
truncate twice;
insert into twice values (2);
