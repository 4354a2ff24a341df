#!/usr/bin/env python3
# MG-018  Numeric _id with fractions between the partition bounds; NaN, infinity, -0 as _id
# expected: 1,005 documents.
from case import *
c=Case('MG-018'); db=c.db
# ---- before the daemon starts
db.c.insert_many([{'_id':i} for i in range(1000)]+[{'_id':10.5},{'_id':999.5},{'_id':float('nan')},{'_id':float('inf')},{'_id':float('-inf')}])
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':10.5},{'$set':{'v':1}})
c.done()
