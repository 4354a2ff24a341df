# The same documents again and again, in transactions of every size.
from case import *
c = Case('upserts'); db = c.db
db.t.insert_many([{'_id': 1, 'v': 'a', 'n': 0, 'big': 'x' * 5000}, {'_id': 2, 'v': 'b', 'n': 0, 'big': None}, {'_id': 3, 'v': 'c', 'n': 0, 'big': ''}])
c.phase("live")
db.t.update_one({'_id': 1}, {'$set': {'v': 'up'}, '$inc': {'n': 1}}, upsert=True)
db.t.replace_one({'_id': 2}, {'v': 'r', 'n': 9, 'big': 'new'}, upsert=True)
db.t.replace_one({'_id': 7}, {'v': 'first', 'n': 0, 'big': None}, upsert=True)
with c.client.start_session() as s, s.start_transaction():
    db.t.delete_one({'_id': 3}, session=s)
    db.t.insert_one({'_id': 3, 'v': 'back', 'n': 1, 'big': 'y' * 3000}, session=s)
    db.t.update_many({}, {'$inc': {'n': 1}}, session=s)
    db.t.update_one({'_id': 1}, {'$set': {'v': 'twice'}}, session=s)
    db.t.update_one({'_id': 1}, {'$set': {'v': 'thrice'}}, session=s)
with c.client.start_session() as s:
    s.start_transaction()
    db.t.delete_many({}, session=s)
    s.abort_transaction()
db.t.update_one({'_id': 2}, {'$set': {'v': None}})
db.t.insert_many([{'_id': 4, 'v': 'four', 'n': 4, 'big': '4'}, {'_id': 5, 'v': 'five', 'n': 5, 'big': '5'}])
db.t.find_one_and_update({'_id': 4}, {'$mul': {'n': 10}})
db.t.find_one_and_delete({'_id': 5})
db.t.bulk_write([InsertOne({'_id': 6, 'v': 'bulk', 'n': 0, 'big': None}), UpdateOne({'_id': 6}, {'$inc': {'n': 1}}), DeleteOne({'_id': 7})])
c.done()
