#!/usr/bin/env python3
# MG-012  rename with dropTarget
# expected: dst = {_id:2,from:'src'} only.
from case import *
c=Case('MG-012'); db=c.db
# ---- before the daemon starts
db.src.insert_one({'_id':2,'from':'src'})
db.dst.insert_many([{'_id':1,'from':'dst'},{'_id':2,'from':'dst'}])
c.phase("live")
# ---- while it streams (or while it is down)
db.src.rename('dst',dropTarget=True)
c.done()
