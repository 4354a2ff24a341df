-- Tables created, dropped, recreated and renamed while it runs; others are not in the way.
-- @opt: tables=stays,created,later,again,renamed_to
-- @phase:setup
create table stays(id int primary key, v text);
create table goes(id int primary key);
create table again(id int primary key, v text);
create table renamed_from(id int primary key, v text);
insert into stays values (1, 'a');
insert into goes values (1);
insert into again values (1, 'first'), (2, 'life');
insert into renamed_from values (1, 'a');
-- @phase:live
create table created(id int primary key, v text);
insert into created select g, 'v' || g from generate_series(1, 300) g;
drop table goes;
update stays set v = 'b';
drop table again;
create table again(id int primary key, v text);
insert into again values (3, 'second');
create table later as select g as id, 'l' as v from generate_series(1, 20) g;
alter table later add primary key (id);
delete from later where id = 20;
alter table renamed_from rename to renamed_to;
insert into renamed_to values (2, 'b');
insert into stays values (2, 'last');
