-- What can't be mirrored is refused by name, with a reason, and nothing else is held up.
-- @opt: tables=good,silent,deferred,nan,inf,late,t stopped=silent:replica~identity,deferred:replica~identity,nan:v+NaN,inf:at+infinity,late:at+294276 text=at
-- @phase:setup
create table good(id int primary key, v text);
create table silent(id int, v text);
create table deferred(id int, v text, primary key (id) deferrable);
create table nan(id int primary key, v numeric(10,2));
create table inf(id int primary key, at date);
create table late(id int primary key, at timestamp);
create table t(id int primary key, at date);
create unlogged table unlogged(id int primary key);
create view seen as select * from good;
create materialized view kept as select * from good;
insert into good values (1, 'a');
insert into silent values (1, 'a');
insert into deferred values (1, 'a');
insert into nan values (1, 1.5);
insert into inf values (1, '2024-01-01');
insert into late values (1, '2024-01-01');
insert into t values (1, 'infinity');
-- @phase:live
insert into good values (2, 'b');
update silent set v = 'b';
delete from deferred;
insert into nan values (2, 'NaN');
insert into inf values (2, 'infinity');
insert into late values (2, '294276-12-31 23:59:59.999999');
insert into t values (2, '-infinity'), (3, '2024-02-29');
insert into unlogged values (1);
update good set v = 'c' where id = 1;
insert into nan values (3, 2.5);
insert into good values (3, 'last');
