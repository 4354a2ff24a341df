#!/usr/bin/env python3
# MG-032  Field names: case clash, empty string, very long, unicode, "_id" nested, names that clash with daemon columns
# expected: All values kept (document column) or mapped names; stable over restarts.
from case import *
c=Case('MG-032'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'A':1,'a':2,'':3,'é':4,'x y;{}':5})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.insert_one({'_id':2,'n'*3000:1,'_op':'I','_lsn':9,'nested':{'_id':5}})
c.done()
