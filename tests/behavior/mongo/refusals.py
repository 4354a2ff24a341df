# What can't be kept is refused by name, with a reason, and nothing else is held up.
from case import *
c = Case('refusals'); db = c.db
db.t.insert_one({'_id': 1, 'v': 'a'})
db.create_collection('seen', viewOn='t', pipeline=[])
c.phase("live")
db.t.insert_one({'_id': 2, 'v': 'b'})
db.t.update_one({'_id': 1}, {'$set': {'v': 'c'}})
c.done(refused={'seen': ['view']})
