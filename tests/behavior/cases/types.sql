-- Every type with minimum, maximum, NULL and what is special; snapshot (1…) and stream (101…).
-- The last timestamp here is the last of Delta Lake (64 bits of microseconds since 1970) but one;
-- Postgres goes on until 294276, see refusals.sql.
-- @opt: tables=n,d,s,o,a
-- @phase:setup
create type mood as enum ('sad', 'happy 😀', 'a,b"c');
create domain positive as int check (value > 0);
create domain short as varchar(8);
create type pair as (x int, y text);
create table n(id int primary key, i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, b bool,
 n1 numeric(1,0), n10 numeric(10,2), n38 numeric(38,0), n3838 numeric(38,38), nneg numeric(5,-2), nfree numeric, n60 numeric(60,10), m money);
create table d(id int primary key, d date, t time, tt timetz, ts timestamp, tz timestamptz, ts0 timestamp(0), tz3 timestamptz(3), iv interval);
create table s(id int primary key, x text, v varchar(20), c char(6), c1 "char", nm name, ba bytea, u uuid, j json, jb jsonb, xm xml, m mood, dom positive, sh short);
create table o(id int primary key, i inet, c cidr, m macaddr, m8 macaddr8, b bit(5), vb varbit(20), p point, l line, bx box, ci circle, po polygon,
 r int4range, nr numrange, tr tstzrange, mr int4multirange, tv tsvector, tq tsquery, pr pair, o oid, lsn pg_lsn);
create table a(id int primary key, i2 int2[], i4 int4[], i8 int8[], f4 float4[], f8 float8[], b bool[], n numeric(10,2)[], nf numeric[], x text[], v varchar(9)[],
 ba bytea[], d date[], ts timestamp[], tz timestamptz[], u uuid[], m mood[]);
insert into n values
 (1,-32768,-2147483648,-9223372036854775808,'-3.4028235e38','-1.7976931348623157e308',false,-9,-99999999.99,-99999999999999999999999999999999999999,-0.99999999999999999999999999999999999999,-9999900,-1e300,-12345678901234567890123456789012345678901234567890.0123456789,'-92233720368547758.08'),
 (2,32767,2147483647,9223372036854775807,'3.4028235e38','1.7976931348623157e308',true,9,99999999.99,99999999999999999999999999999999999999,0.99999999999999999999999999999999999999,9999900,1e-300,12345678901234567890123456789012345678901234567890.0123456789,'92233720368547758.07'),
 (3,null,null,null,null,null,null,null,null,null,null,null,null,null,null),
 (4,0,0,0,'NaN','NaN',true,0,0.00,0,0,0,'NaN',0,0),
 (5,1,1,9007199254740993,'Infinity','-Infinity',false,1,0.01,1,1e-38,100,'Infinity',1e-10,0.01),
 (6,-1,-1,-1,'1e-45','5e-324',false,-1,-0.01,-1,-1e-38,-100,'-Infinity',-1e-10,-0.01),
 (7,7,7,7,'-0','-0',true,1,1.10,10,0.1,49,1.000,1,1),
 (8,8,8,8,'1.17549435e-38','0.1',true,1,20,20,0.10,51,100,1.10,1);
insert into d values
 (1,'4713-01-01 BC','00:00:00','00:00:00+15:59','4713-01-01 00:00:00 BC','4713-01-02 00:00:00+00 BC','4713-01-01 00:00:00 BC','4713-01-02 00:00:00+00 BC','-178000000 years'),
 (2,'5874897-12-31','24:00:00','24:00:00-15:59','294247-01-10 04:00:54.775806','294247-01-10 04:00:54.775806+00','294247-01-10 04:00:54','294247-01-10 04:00:54.775+00','178000000 years'),
 (3,null,null,null,null,null,null,null,null),
 (4,'0001-12-31 BC','23:59:59.999999','12:34:56.789+05:30','0001-12-31 23:59:59.999999 BC','0001-12-31 23:59:59.999999+00 BC','0001-01-01','0001-01-01 00:00:00+00','1 year 2 mons -3 days +04:05:06.789'),
 (5,'1582-10-10','12:00','12:00+00','1582-10-10 12:00','1582-10-10 12:00+00','1969-12-31 23:59:59','1969-12-31 23:59:59.999+00','-1 mons'),
 (6,'2024-02-29','01:02:03.4','01:02:03.4-03','2024-02-29 10:30:45.12345','2024-06-15 10:30:45.1+02','2024-02-29 10:30:45.5','2024-02-29 10:30:45.0005+00','00:00:00'),
 (7,'1900-02-28','00:00:00.000001','00:00:00.000001+00','1969-12-31 23:59:59.999999','1969-12-31 23:59:59.999999+00','1970-01-01','1970-01-01 00:00+00','00:00:00.000001');
insert into s values
 (1,'','','','','','\x','00000000-0000-0000-0000-000000000000','{}','{}','<a/>','sad',1,''),
 (2,repeat('é😀',3000),'twenty characters 20','sixsix','z',repeat('n',63),decode(repeat('00ff',4000),'hex'),'ffffffff-ffff-ffff-ffff-ffffffffffff','{"z":1, "a":2,"z":3}','{"n":1e400,"d":0.10000000000000000000000001}','<a>é</a>','happy 😀',2147483647,'12345678'),
 (3,null,null,null,null,null,null,null,null,null,null,null,null,null),
 (4,E'a\tb\nc\rd\x01e\\f''g"h',' lead','pad','a','(null)','\x00','A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11','  [1 , 2.0, -0 ]  ','[1, 2.0]','text only','a,b"c',5,'NULL'),
 (5,'NULL','null','\N','N','NULL','\x5c783030','a0eebc999c0b4ef8bb6d6bb9bd380a12','null','null',null,'sad',6,'\N'),
 (6,'é','é','é','x','ünï','\xdeadbeef',null,'"\ud800"','"x"',null,null,null,'  x ');
insert into o values
 (1,'0.0.0.0/0','0.0.0.0/0','00:00:00:00:00:00','00:00:00:00:00:00:00:00',B'00000',B'','(0,0)','{1,2,3}','((0,0),(1,1))','<(0,0),0>','((0,0),(1,1))','empty','(,)','[2024-01-01 00:00:00+00,)','{}','','', (1,'a')::pair,0,'0/0'),
 (2,'ffff::/128','ffff::/128','ff:ff:ff:ff:ff:ff','ff:ff:ff:ff:ff:ff:ff:ff',B'11111',B'10101','(Infinity,NaN)','{1,-1,0}','((1e300,1),(-1,-1))','<(1,2),3.5>','((0,0),(1,1),(2,0))','[1,5]','[1.0,1.50]','(-infinity,infinity)','{[1,3),[5,9)}','a:1A fat:2B,4C','a & (b | !c)',(null,'q"uo,te')::pair,4294967295,'FFFFFFFF/FFFFFFFF'),
 (3,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null);
insert into a values
 (1,'{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}','{}'),
 (2,'{-32768,32767,NULL}','{-2147483648,2147483647}','{-9223372036854775808,9223372036854775807}','{NaN,-0,1e-45}','{Infinity,-Infinity,0.1}','{t,f,NULL}','{1.10,-99999999.99}','{NaN,1e50,1.000}',
  '{"","NULL",NULL,"a b","x\"y","back\\slash","{}","a,b",é😀}','{abc,"d "}','{"\\x00ff","\\x"}','{4713-01-01 BC,5874897-12-31}','{"2024-02-29 10:30:45.1","0001-12-31 23:59:59 BC"}','{"2024-02-29 10:30:45.1+02"}','{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}','{sad,"happy 😀","a,b\"c"}'),
 (3,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null),
 (4,'{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}','{NULL}');
-- @phase:live
insert into n select id + 100, i2, i4, i8, f4, f8, b, n1, n10, n38, n3838, nneg, nfree, n60, m from n;
insert into d select id + 100, d, t, tt, ts, tz, ts0, tz3, iv from d;
insert into s select id + 100, x, v, c, c1, nm, ba, u, j, jb, xm, m, dom, sh from s;
insert into o select id + 100, i, c, m, m8, b, vb, p, l, bx, ci, po, r, nr, tr, mr, tv, tq, pr, o, lsn from o;
insert into a select id + 100, i2, i4, i8, f4, f8, b, n, nf, x, v, ba, d, ts, tz, u, m from a;
update n set i2 = i2 where id < 4;
update d set iv = iv where id < 4;
update s set v = v where id < 4;
delete from o where id = 1;
update a set b = b where id < 4;
