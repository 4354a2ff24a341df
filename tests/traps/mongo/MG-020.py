#!/usr/bin/env python3
# MG-020  Int32 / Int64 / double mix, 2^53+1, NaN, -0.0, int that becomes double by $inc 0.5
# expected: 9007199254740993 and 1.5 exact.
from case import *
c=Case('MG-020'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'n':1},{'_id':2,'n':Int64(9007199254740993)},{'_id':3,'n':float('nan')},{'_id':4,'n':-0.0},{'_id':5,'n':Int64(-2)**63 if False else Int64(-9223372036854775808)}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},{'$inc':{'n':0.5}})
db.c.insert_one({'_id':6,'n':2147483647})
db.c.update_one({'_id':6},{'$inc':{'n':1}})
c.done()
