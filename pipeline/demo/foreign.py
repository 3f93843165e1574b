"""Hold alt texts in other languages for some of the artworks, written for this demo."""

FOREIGN: dict[str, str] = {
    "435621": "Jeanne d'Arc entend les voix dans le jardin de ses parents",
    "435702": "Le marché aux chevaux de Paris, une grande peinture à l'huile",
    "435882": "Natureza-morta com maçãs e um vaso de prímulas sobre a mesa",
    "436095": "Женщины с детьми в вагоне третьего класса",  # noqa: RUF001
    "436105": "Der Tod des Sokrates: der Philosoph greift nach dem Becher mit dem Gift",
    "436528": "Un vaso di iris viola su uno sfondo chiaro, olio su tela",
    "436535": "Champ de blé avec des cyprès sous un ciel nuageux",
    "436575": "Vista de Toledo bajo un cielo de tormenta, óleo sobre lienzo",
    "437397": "Selbstbildnis des Malers mit Mütze in seinen späten Jahren",
    "437854": "Walvisvaarders in kleine boten op een ruwe zee",
    "438815": "Madame Charpentier et ses enfants avec leur grand chien dans le salon",
    "438817": "La clase de baile con las jóvenes bailarinas y su maestro",
    "438822": "ジャングルの花の中で食事をするライオン",
    "459112": "Zwei junge Mädchen sitzen zusammen am Klavier und lesen die Noten",
}
"""Museum object number -> alt text."""
