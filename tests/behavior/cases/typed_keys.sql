-- Each type that can be a key, as a key: insert, update, delete, key change.
-- @opt: tables=k_i2,k_i8,k_f8,k_b,k_n,k_nf,k_x,k_c,k_ba,k_d,k_ts,k_tz,k_u,k_m,k_t,k_iv,k_jb,k_in,k_r,k_two,k_ar stopped=k_iv:other~texts,k_jb:other~texts,k_r:other~texts,k_ar:other~texts
-- @phase:setup
create type mood as enum ('sad', 'ok', 'happy');
create table k_i2(k int2 primary key, v int); insert into k_i2 values (-32768, 1), (32767, 1), (0, 1);
create table k_i8(k int8 primary key, v int); insert into k_i8 values (-9223372036854775808, 1), (9223372036854775807, 1), (0, 1);
create table k_f8(k float8 primary key, v int); insert into k_f8 values ('NaN', 1), ('-Infinity', 1), (0.1, 1), (5e-324, 1);
create table k_b(k bool primary key, v int); insert into k_b values (true, 1), (false, 1);
create table k_n(k numeric(38,10) primary key, v int); insert into k_n values (1.1, 1), (-9999999999999999999999999999.9999999999, 1), (0, 1);
create table k_nf(k numeric primary key, v int); insert into k_nf values (1.10, 1), (1e100, 1), ('NaN', 1);
create table k_x(k text primary key, v int); insert into k_x values ('', 1), ('a', 1), ('a ', 1), ('A', 1), ('é', 1), ('😀', 1);
create table k_c(k char(5) primary key, v int); insert into k_c values ('a', 1), ('abcde', 1), ('', 1);
create table k_ba(k bytea primary key, v int); insert into k_ba values ('\x', 1), ('\x00', 1), ('\x0000', 1), ('\xff', 1);
create table k_d(k date primary key, v int); insert into k_d values ('4713-01-01 BC', 1), ('5874897-12-31', 1), ('2024-02-29', 1);
create table k_ts(k timestamp primary key, v int); insert into k_ts values ('4713-01-01 BC', 1), ('294247-01-10 04:00:54.775806', 1), ('2024-02-29', 1);
create table k_tz(k timestamptz primary key, v int); insert into k_tz values ('4713-01-02 00:00+00 BC', 1), ('294247-01-10 04:00:54.775806+00', 1), ('2024-02-29 00:00+00', 1);
create table k_u(k uuid primary key, v int); insert into k_u values ('00000000-0000-0000-0000-000000000000', 1), ('ffffffff-ffff-ffff-ffff-ffffffffffff', 1), ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1);
create table k_m(k mood primary key, v int); insert into k_m values ('sad', 1), ('ok', 1);
create table k_t(k time primary key, v int); insert into k_t values ('00:00', 1), ('24:00', 1), ('12:34:56.789', 1);
create table k_iv(k interval primary key, v int); insert into k_iv values ('1 day', 1), ('-1 mons', 1), ('0', 1);
create table k_jb(k jsonb primary key, v int); insert into k_jb values ('{"a": 1}', 1), ('[]', 1), ('null', 1);
create table k_in(k inet primary key, v int); insert into k_in values ('10.0.0.1', 1), ('10.0.0.0/8', 1), ('::1', 1);
create table k_r(k int4range primary key, v int); insert into k_r values ('empty', 1), ('[1,5)', 1), ('(,)', 1);
create table k_two(k text, l timestamptz, v int, primary key (l, k)); insert into k_two values ('a', '2024-01-01 00:00+00', 1), ('b', '2024-01-01 00:00+00', 1), ('a', '2024-01-02 00:00+00', 1);
create table k_ar(k int[] primary key, v int); insert into k_ar values ('{}', 1), ('{1,2}', 1), ('{NULL}', 1);
-- @phase:live
update k_i2 set v = 2 where k = -32768; delete from k_i2 where k = 32767; update k_i2 set k = 5 where k = 0; insert into k_i2 values (7, 3);
update k_i8 set v = 2 where k < 0; delete from k_i8 where k > 0; update k_i8 set k = 5 where k = 0;
update k_f8 set v = 2 where k = 'NaN'; delete from k_f8 where k = '-Infinity'; update k_f8 set k = 0.3 where k = 0.1; insert into k_f8 values (0.30000000000000004, 4);
update k_b set v = 2 where k; delete from k_b where not k;
update k_n set v = 2 where k < 0; delete from k_n where k = 1.1; update k_n set k = 0.0000000001 where k = 0;
update k_nf set v = 2 where k = 'NaN'; delete from k_nf where k = 1e100; update k_nf set k = 1.1 where k = 1.10; update k_nf set k = 7 where k = 1.1;
update k_x set v = 2 where k = 'a '; delete from k_x where k = 'A'; update k_x set k = 'b' where k = ''; update k_x set v = 3 where k = '😀';
update k_c set v = 2 where k = 'a'; delete from k_c where k = 'abcde'; update k_c set k = 'z' where k = '';
update k_ba set v = 2 where k = '\x00'; delete from k_ba where k = '\x0000'; update k_ba set k = '\x01' where k = '\x';
update k_d set v = 2 where k < '0001-01-01'; delete from k_d where k > '9999-12-31'; update k_d set k = '2024-03-01' where k = '2024-02-29';
update k_ts set v = 2 where k < '0001-01-01'; delete from k_ts where k > '9999-12-31'; update k_ts set k = '2024-03-01' where k = '2024-02-29';
update k_tz set v = 2 where k < '0001-01-01'; delete from k_tz where k > '9999-12-31'; update k_tz set k = '2024-03-01 00:00+00' where v = 1;
update k_u set v = 2 where k = '00000000-0000-0000-0000-000000000000'; delete from k_u where k = 'ffffffff-ffff-ffff-ffff-ffffffffffff'; update k_u set k = 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' where v = 1;
update k_m set v = 2 where k = 'sad'; update k_m set k = 'happy' where k = 'ok';
update k_t set v = 2 where k = '24:00'; delete from k_t where k = '00:00'; update k_t set k = '01:00' where v = 1;
update k_iv set v = 2 where k = '1 day'; delete from k_iv where k = '0'; update k_iv set k = '24:00:01' where v = 1;
update k_jb set v = 2 where k = '[]'; delete from k_jb where k = 'null'; update k_jb set k = '{"a": 2}' where v = 1;
update k_in set v = 2 where k = '10.0.0.0/8'; delete from k_in where k = '::1'; update k_in set k = '10.0.0.2' where v = 1;
update k_r set v = 2 where k = 'empty'; delete from k_r where k = '(,)'; update k_r set k = '[7,9)' where v = 1;
update k_two set v = 2 where k = 'b'; delete from k_two where l > '2024-01-01 12:00+00'; update k_two set k = 'c' where v = 1;
update k_ar set v = 2 where k = '{}'; delete from k_ar where k = '{NULL}'; update k_ar set k = '{2,1}' where v = 1;
