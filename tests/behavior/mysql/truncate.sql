-- TRUNCATE, which ends the transaction it is in; and deletes of all rows that are rolled back.
-- @opt: tables=emptied,around,back,twice
-- @phase:setup
create table emptied(id int primary key, v text);
create table around(id int primary key, v text);
create table back(id int primary key);
create table twice(id int primary key);
insert into emptied values (1,'a'),(2,'b');
insert into around values (1,'a'),(2,'b');
insert into back values (1),(2),(3);
insert into twice values (1),(2),(3);
-- @phase:live
truncate table emptied;
insert into emptied values (3,'c');
begin;
insert into around values (1000,'lost');
truncate around;
insert into around values (1,'kept'),(2000,'kept');
update around set v='after' where id=1;
begin;
delete from back;
rollback;
truncate twice;
insert into twice values (1);
truncate twice;
