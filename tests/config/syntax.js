{
  port: 8125
  backends: []
}
