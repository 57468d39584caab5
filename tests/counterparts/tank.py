#!/usr/bin/env python3
"""A tank that speaks MQTT 5 by paho-mqtt, for tests/mqtt_broker: tank.py PORT.

It answers what the product of tests/products/mqtt/answers-by-properties.toml asks: on the response topic, with the
correlation data and properties of its own. Each message that it gets is a line of JSON on stdout, and "ready" the first
line; each line of JSON on stdin ({"topic", "payload", "qos", "retain", "user"}) is a message that it publishes.
"""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

target = 0


def say(**told):
    print(json.dumps(told), flush=True)


def publish(client, topic, payload="", qos=1, retain=False, user=None, correlation=None):
    properties = Properties(PacketTypes.PUBLISH)
    if user:
        properties.UserProperty = list(user.items())
    if correlation is not None:
        properties.CorrelationData = correlation
    return client.publish(topic, payload, qos=qos, retain=retain, properties=properties)


def answer(client, message, payload=""):
    properties = message.properties
    publish(client, properties.ResponseTopic, payload, 2, user={"by": "tank"}, correlation=properties.CorrelationData)


def received(client, _, message):
    global target
    properties = message.properties
    say(
        topic=message.topic,
        payload=message.payload.decode(),
        qos=message.qos,
        user=dict(getattr(properties, "UserProperty", [])),
        response=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", b"").decode(),
    )
    command = message.topic.removeprefix("tank/")
    if command == "target/set":
        wish = int(message.payload)
        if wish > 100:
            return answer(client, message, json.dumps({"error": f"{wish} is too hot"}))
        target = wish
        answer(client, message)
        publish(client, "tank/target", user={"now": str(target)}, qos=2)
    elif command == "target/get":
        answer(client, message)
        publish(client, "tank/target", user={"now": str(target)}, qos=2)
    elif command == "measure":
        times = json.loads(message.payload)["times"]
        if times < 0:
            return answer(client, message, json.dumps({"status": "no such number of times"}))
        answer(client, message, json.dumps({"status": "ok", "result": times * 1.5, "as": {"unit": "l"}}))


def main():
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="tank", protocol=mqtt.MQTTv5)
    client.on_message = received
    client.on_connect = lambda *_: client.subscribe([(f"tank/{topic}", mqtt.SubscribeOptions(qos=2)) for topic in ("target/set", "target/get", "measure")])
    client.on_subscribe = lambda *_: say(ready=True)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    for line in sys.stdin:
        # paho-mqtt loses a message when another thread fills its window meanwhile, so they go one by one.
        publish(client, **json.loads(line)).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


main()
