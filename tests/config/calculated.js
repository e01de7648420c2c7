// A file as it is written for containers and for many hosts: everything that differs is calculated.
module.exports = {
  port: process.env.PORT,
  graphiteHost: process.env.GRAPHITE_HOST || '127.0.0.1',
  graphitePort: parseInt(process.env.GRAPHITE_PORT, 10) || 2003,
  flushInterval: 10 * 1000,
  backends: ['./backends/graphite', process.env.BACKENDS.split(',').pop()],
  prefixStats: 'statsd.' + require('os').hostname().split('.')[0],
  graphite: {
    legacyNamespace: process.env.LEGACY === 'true',
    globalSuffix: `${require('os').hostname().replace(/\./g, '_')}`
  },
  debug: !!process.env.DEBUG
};
