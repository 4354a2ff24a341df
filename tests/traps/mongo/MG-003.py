#!/usr/bin/env python3
# MG-003  _id of different BSON types in one collection; snapshot resumed with {_id: {$gt: last}}
# expected: 4,011 documents; 11 distinct _id types all present, after a restart in the middle of the snapshot.
from case import *
c=Case('MG-003'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':'s%05d'%i,'t':'str'} for i in range(2000)]+[{'_id':i,'t':'int'} for i in range(1000)]+[{'_id':ObjectId('65000000%016x'%i),'t':'oid'} for i in range(1000)])
db.c.insert_many([{'_id':x,'t':'x'} for x in (MinKey(),0.5,Int64(1)<<40,Decimal128('1.25'),SON([('a',1)]),SON([('b',1),('a',1)]),Binary(b'\x00'),uuid.UUID(int=7).bytes,True,dt(2024,1,1),Timestamp(1,1))])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':True},{'$set':{'t':'y'}})
c.done()
