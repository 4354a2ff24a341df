#!/usr/bin/env python3
# MG-009  Dotted and numeric field names, $-prefixed names
# expected: {_id:1,'a.b':9,a:{b:1,'0':'z'},arr:[5,7],'$x':1}
from case import *
c=Case('MG-009'); db=c.db
# ---- before the daemon starts
db.c.insert_one({'_id':1,'a.b':1,'a':{'b':1,'0':'y'},'arr':[5,6],'$x':1})
c.phase("live")
# ---- while it streams (or while it is down)
db.c.update_one({'_id':1},[{'$replaceWith':{'$setField':{'field':'a.b','input':'$$ROOT','value':9}}}])
db.c.update_one({'_id':1},{'$set':{'a.0':'z','arr.1':7}})
c.done()
