-- Schemas, tables and columns with names that need quotes in SQL or care in a path.
-- @opt: tables=Mixed,with~blank,Odd~Schema.t%41,_leading,.dot,ünï😀 config=*.*
-- @phase:setup
create schema "Odd Schema";
create table "Mixed"("Id" int primary key, "camelCase" text, "select" int);
create table "with blank"(id int primary key, "ünï" text);
create table "Odd Schema"."t%41"(id int primary key, "x.y" text, "quo""te" text);
create table "_leading"(id int primary key, _v text);
create table ".dot"(id int primary key);
create table "ünï😀"(id int primary key, "😀" text);
insert into "Mixed" values (1, 'a', 1), (2, 'b', 2);
insert into "with blank" values (1, 'a');
insert into "Odd Schema"."t%41" values (1, 'a', 'b');
insert into "_leading" values (1, 'a');
insert into ".dot" values (1);
insert into "ünï😀" values (1, 'a');
-- @phase:live
update "Mixed" set "camelCase" = 'u', "select" = null where "Id" = 1;
delete from "Mixed" where "Id" = 2;
update "with blank" set "ünï" = 'u';
insert into "Odd Schema"."t%41" values (2, 'c', 'd');
update "Odd Schema"."t%41" set "x.y" = 'u' where id = 1;
update "_leading" set _v = 'u';
insert into ".dot" values (2);
update "ünï😀" set "😀" = 'u';
