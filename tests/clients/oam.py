"""A WCS OAM client on stomp.py: login, subscriptions, a call, and receipts for what it sends and for its goodbye.

The only argument is JSON: port, passcode, heartbeats. Prints one JSON line for everything it saw; runs what comes as
JSON lines on standard input.
"""

import json
import sys
import threading

import stomp

options = json.loads(sys.argv[1])
lock = threading.Lock()


def say(saw, **fields):
    with lock:
        print(json.dumps({"saw": saw, **fields}), flush=True)


# The library's threads end with the main one, which therefore waits for these two.
goodbye = threading.Event()
disconnected = threading.Event()


class Listener(stomp.ConnectionListener):
    def on_connected(self, frame):
        say("connected", version=frame.headers.get("version"), beat=frame.headers.get("heart-beat"))

    def on_message(self, frame):
        say("message", destination=frame.headers["destination"], body=json.loads(frame.body))

    def on_receipt(self, frame):
        say("receipt", id=frame.headers["receipt-id"])
        if frame.headers["receipt-id"] == "goodbye":
            goodbye.set()

    def on_error(self, frame):
        say("error", message=frame.headers.get("message"))

    def on_heartbeat_timeout(self):
        say("heart-beat timeout")

    def on_disconnected(self):
        say("disconnected")
        disconnected.set()


connection = stomp.WSStompConnection(
    [("127.0.0.1", options["port"])],
    ws_path=options.get("path", "/ws"),
    heartbeats=tuple(options.get("heartbeats", (0, 0))),
    reconnect_attempts_max=1,
)
connection.set_listener("", Listener())
try:
    connection.connect(options.get("login"), options.get("passcode"), wait=True)
except stomp.exception.ConnectFailedException:
    say("refused")
    sys.exit(0)

for line in sys.stdin:
    command = json.loads(line)
    match command["do"]:
        case "subscribe":
            connection.subscribe(command["destination"], id=command["id"], headers={"receipt": command["id"]})
        case "send":
            connection.send(command["destination"], command["body"], receipt=command["receipt"])
        case "disconnect":
            connection.disconnect(receipt="goodbye")
            goodbye.wait()
            disconnected.wait()
            break
