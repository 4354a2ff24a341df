-- Keys of several columns and types, read in ranges and moved about.
-- @opt: tables=pair,word,bytes,moment,uniq,big
-- @phase:setup
create table pair(a int, b varchar(9) collate utf8mb4_bin, v int, primary key(b, a));
create table word(k varchar(20) collate utf8mb4_general_ci primary key, v int);
create table bytes(k binary(8) primary key, v int);
create table moment(k datetime(3) primary key, v int);
create table uniq(a int not null, b int, v varchar(9), unique key u(a));
create table big(k bigint unsigned primary key, v int);
insert into pair values (1,'x',1),(2,'x',2),(1,'y',3),(2,'é',4);
insert into word values ('Abc',1),('b',2),('C ',3);
insert into bytes values (x'0000000000000000',1),(x'ff00000000000000',2),(x'0102',3);
insert into moment values ('2024-01-01 00:00:00.001',1),('2024-01-01 00:00:00',2);
insert into uniq values (1,1,'a'),(2,null,'b');
insert into big values (1,1),(9223372036854775808,2),(18446744073709551615,3);
-- @phase:live
update pair set a=a+10 where b='x';
update pair set b='z' where a=1;
delete from pair where b='é';
update word set k='ABC', v=10 where k='abc';
insert into word values ('B',7) on duplicate key update v=v+100;
delete from word where k='c';
insert into word values ('c',33);
update bytes set v=v+1;
update bytes set k=x'0103' where k=x'0102000000000000';
update moment set k='2024-01-01 00:00:00.002' where v=1;
update uniq set a=5 where a=2;
insert into uniq values (2,2,'again');
update big set v=v*10;
delete from big where k=9223372036854775808;
