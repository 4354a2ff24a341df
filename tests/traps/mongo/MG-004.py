#!/usr/bin/env python3
# MG-004  _id equality across numeric types: 1, 1.0, NumberLong(1), Decimal128("1") are one key; 1 and "1" and true are not
# expected: Two documents: numeric 1 (replaced: v=4) and string '1'. (Type of _id after replace stays int.)
from case import *
c=Case('MG-004'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':1,'v':1},{'_id':'1','v':2}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1.0},{'$set':{'v':3}})
db.c.replace_one({'_id':Int64(1)},{'v':4})
try:
    db.c.insert_one({'_id':Decimal128('1'),'v':5})
except Exception as e: print('expected duplicate:',e.__class__.__name__)
c.done()
