# What an application does with pymongo: argument 1 is a good URI, argument 2 one with a wrong password.
import sys
import pymongo
from pymongo import MongoClient, WriteConcern
from pymongo.errors import OperationFailure
from pymongo.read_preferences import Nearest

good, wrong = sys.argv[1:3]
for more in ["", "&compressors=zlib"]:
    client = MongoClient(good + more, serverSelectionTimeoutMS=20000)
    c = client.app.c
    c.insert_many([{"n": i, "text": "text " * 300} for i in range(5)])
    assert len(list(c.find({}, batch_size=2))) >= 5
    assert c.update_one({"n": 1}, {"$inc": {"n": 1}}).modified_count == 1
    c.with_options(write_concern=WriteConcern(w=0)).insert_one({"n": 99})
    assert len(list(client.app.get_collection("c", read_preference=Nearest(tag_sets=[{"pop": "fsn"}])).find())) >= 6
    with client.start_session() as session:
        c.insert_one({"n": 7}, session=session)
        list(c.find({}, session=session))
    client.close()
try:
    MongoClient(wrong, serverSelectionTimeoutMS=20000).app.c.insert_one({})
    sys.exit("a wrong password was taken")
except OperationFailure as e:
    assert e.code == 18, e
print("pymongo", pymongo.version, "served")
