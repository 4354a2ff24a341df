-- Each type that can be a key, as a key: insert, update, delete, key change.
-- @opt: tables=k_t,k_u,k_b,k_bu,k_d,k_dd,k_x,k_c,k_bin,k_vb,k_e,k_y,k_da,k_dt,k_ts,k_ti,k_b1
-- @phase:setup
set session time_zone='+00:00';
create table k_t(k tinyint primary key, v int); insert into k_t values (-128,1),(127,1),(0,1);
create table k_u(k int unsigned primary key, v int); insert into k_u values (4294967295,1),(0,1),(7,1);
create table k_b(k bigint primary key, v int); insert into k_b values (-9223372036854775808,1),(9223372036854775807,1),(0,1);
create table k_bu(k bigint unsigned primary key, v int); insert into k_bu values (18446744073709551615,1),(9223372036854775808,1),(0,1);
create table k_d(k decimal(38,10) primary key, v int); insert into k_d values (1.1,1),(-9999999999999999999999999999.9999999999,1),(0,1);
create table k_dd(k decimal(65,30) primary key, v int); insert into k_dd values (1.1,1),(-99999999999999999999999999999999999.999999999999999999999999999999,1),(0,1);
create table k_x(k varchar(20) collate utf8mb4_bin primary key, v int); insert into k_x values ('',1),('a',1),('A',1),('é',1),('😀',1);
create table k_c(k char(5) collate utf8mb4_bin primary key, v int); insert into k_c values ('',1),('a',1),('abcde',1);
create table k_bin(k binary(4) primary key, v int); insert into k_bin values (x'00000000',1),(x'ff',1),(x'00ff0000',1);
create table k_vb(k varbinary(4) primary key, v int); insert into k_vb values (x'',1),(x'00',1),(x'0000',1);
create table k_e(k enum('sad','ok','happy') primary key, v int); insert into k_e values ('sad',1),('ok',1),('happy',1);
create table k_y(k year primary key, v int); insert into k_y values (1901,1),(2155,1),(2024,1);
create table k_da(k date primary key, v int); insert into k_da values ('1000-01-01',1),('9999-12-31',1),('2024-02-29',1);
create table k_dt(k datetime(6) primary key, v int); insert into k_dt values ('1000-01-01 00:00:00.000001',1),('9999-12-31 23:59:59.999999',1),('2024-02-29',1);
create table k_ts(k timestamp(3) primary key, v int); insert into k_ts values ('1970-01-01 00:00:01',1),('2038-01-19 03:14:07.999',1),('2024-02-29',1);
create table k_ti(k time(2) primary key, v int); insert into k_ti values ('-838:59:59',1),('838:59:59',1),('00:00:00.01',1);
create table k_b1(k bit(1) primary key, v int); insert into k_b1 values (b'0',1);
-- @phase:live
set session time_zone='+00:00';
update k_t set v=2 where k=-128; delete from k_t where k=127; update k_t set k=5 where k=0; insert into k_t values (127,3);
update k_u set v=2 where k=4294967295; delete from k_u where k=7; update k_u set k=5 where k=0; insert into k_u values (7,3);
update k_b set v=2 where k<0; delete from k_b where k>0; update k_b set k=5 where k=0;
update k_bu set v=2 where k=18446744073709551615; delete from k_bu where k=9223372036854775808; update k_bu set k=5 where k=0;
update k_d set v=2 where k<0; delete from k_d where k=1.1; update k_d set k=5 where k=0; insert into k_d values (1.10,3);
update k_dd set v=2 where k<0; delete from k_dd where k=1.1; update k_dd set k=5 where k=0; insert into k_dd values (1.10,3);
update k_x set v=2 where k='A'; delete from k_x where k='é'; update k_x set k='b' where k='';
update k_c set v=2 where k='a'; delete from k_c where k='abcde'; update k_c set k='b' where k='';
update k_bin set v=2 where k=x'00000000'; delete from k_bin where k=x'ff000000'; update k_bin set k=x'01' where k=x'00ff0000';
update k_vb set v=2 where k=x''; delete from k_vb where k=x'00'; update k_vb set k=x'01' where k=x'0000';
update k_e set v=2 where k='ok'; delete from k_e where k='sad'; insert into k_e values ('sad',3);
update k_y set v=2 where k=1901; delete from k_y where k=2155; update k_y set k=1999 where k=2024;
update k_da set v=2 where k='1000-01-01'; delete from k_da where k='9999-12-31'; update k_da set k='2024-03-01' where k='2024-02-29';
update k_dt set v=2 where k<'1001-01-01'; delete from k_dt where k>'9999-01-01'; update k_dt set k='2024-03-01' where k='2024-02-29';
update k_ts set v=2 where k<'1971-01-01'; delete from k_ts where k>'2038-01-01'; update k_ts set k='2024-03-01' where k='2024-02-29';
update k_ti set v=2 where k<0; delete from k_ti where k>'800:00:00'; update k_ti set k='00:00:00.02' where k='00:00:00.01';
update k_b1 set v=2 where k=b'0'; insert into k_b1 values (b'1',3);
