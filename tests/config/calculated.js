{
  port: process.env.PORT,
  flushInterval: 10 * 1000,
  prefixStats: require('os').hostname()
}
