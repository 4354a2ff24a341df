#!/usr/bin/env python3
# MG-033  Ten thousand distinct field names (map used as document)
# expected: Column count bounded by a documented limit; rest in a JSON/overflow column; 2,000 values readable.
from case import *
c=Case('MG-033'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':0})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.insert_many([{'_id':i,'k%d'%i:i} for i in range(1,2001)])
c.done()
