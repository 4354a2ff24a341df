#!/usr/bin/env python3
# MG-034  Depth 100 nesting
# expected: Document kept.
from case import *
c=Case('MG-034'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':0})
c.phase("live")
# ---- while it streams (or while it is down)
d={'leaf':1}
for _ in range(98): d={'n':d}
db.c.insert_one({'_id':1,'d':d})
c.done()
