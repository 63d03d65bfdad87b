'use strict';

// Every request opens a room, an emitter with one single listener; a room is dropped when the next fifty are open.

const { EventEmitter } = require('node:events');
const express = require('express');
const { serve, text } = require('../frame.js');

const MOST = 50;

class Room extends EventEmitter {
  constructor(name) {
    super();
    this.name = name;
    this.topic = text(1000);
  }
}

const rooms = new Map();
let opened = 0;

const app = express();

app.post('/rooms', (_req, res) => {
  const room = new Room(`room-${opened++}`);
  room.on('message', function deliver(line) {
    room.topic = line;
  });
  rooms.set(room.name, room);
  if (rooms.size > MOST) rooms.delete(rooms.keys().next().value);
  res.status(201).json({ name: room.name });
});

serve(app);
