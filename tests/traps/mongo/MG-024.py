#!/usr/bin/env python3
# MG-024  Arrays: empty, nested, mixed, 10,000 elements, element update by index and by arrayFilters
# expected: {_id:1,a:[1,[2,[]],{'x':9},null,null,7]}
from case import *
c=Case('MG-024'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'a':[1,[2,[]],{'x':1}]})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},{'$set':{'a.2.x':9}})
db.c.update_one({'_id':1},{'$set':{'a.5':7}})
c.done()
