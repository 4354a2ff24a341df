#!/usr/bin/env python3
# MG-022  ObjectId, Binary subtypes 0/2/3/4/5/6/128, UUID legacy, Regex, Code with scope, Timestamp, MinKey/MaxKey, DBRef, Symbol, Undefined
# expected: Canonical Extended JSON equal to the source for each.
from case import *
c=Case('MG-022'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'x':ObjectId('000000000000000000000000')},{'_id':2,'x':Binary(b'\x00\xff',0)},{'_id':3,'x':Binary(b'\x01'*16,3)},{'_id':4,'x':Binary(b'\x02'*16,4)},{'_id':5,'x':Binary(b'',128)},{'_id':6,'x':Regex('^a/b','ix')},{'_id':7,'x':Code('function(){return y}',{'y':1})},{'_id':8,'x':Timestamp(4294967295,4294967295)},{'_id':9,'x':MinKey()},{'_id':10,'x':MaxKey()},{'_id':11,'x':DBRef('c',ObjectId('65'*12),'other')}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.insert_one({'_id':12,'x':Binary(b'\x05'*16,5)})
c.done()
