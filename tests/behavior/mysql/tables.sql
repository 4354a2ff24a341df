-- Tables created, dropped, made again, renamed and exchanged; others are not in the way.
-- @opt: tables=stays,fresh,again,renamed_to,swapped
-- @phase:setup
create table stays(id int primary key, v text);
create table goes(id int primary key);
create table again(id int primary key, v text);
create table renamed_from(id int primary key, v text);
create table swapped(id int primary key, v text);
insert into stays values (1,'a');
insert into goes values (1);
insert into again values (1,'first'),(2,'life');
insert into renamed_from values (1,'a');
insert into swapped values (1,'old');
-- @phase:live
create table fresh(id int primary key, v text);
insert into fresh values (1,'x'),(2,'y');
update fresh set v='z' where id=2;
drop table goes;
update stays set v='b';
drop table again;
create table again(id int primary key, v text);
insert into again values (3,'second');
rename table renamed_from to renamed_to;
insert into renamed_to values (2,'b');
create table swapped_new like swapped;
insert into swapped_new values (1,'new'),(2,'more');
rename table swapped to swapped_old, swapped_new to swapped;
insert into swapped values (3,'after');
insert into stays values (2,'last');
