#!/usr/bin/env python3
# MG-028  Time-series collection, view, system.* collections
# expected: c captured; ts and v reported as unsupported; daemon runs.
from case import *
c=Case('MG-028'); db=c.db
# ---- before the daemon starts
db.create_collection('ts',timeseries={'timeField':'t'})
db.create_collection('v',viewOn='c',pipeline=[])
db.c.insert_one({'_id':1})
c.phase("live")
# ---- while it streams (or while it is down)
db.ts.insert_one({'t':dt(2024,1,1),'x':1})
db.c.insert_one({'_id':2})
c.done()
